% Print the client's answers, one JSON line each. Usage: octave-cli conformance.m ENDPOINT STALE_S
arguments = argv();
client = SpikeloopClient(arguments{1}, struct('velocity', [0; 0]), str2double(arguments{2}));
told = 'nothing yet';
while true
    frames = client.receive();
    t = SpikeloopClient.monotonic();
    is_decode = ~isempty(frames) && client.follower.hear(frames, t);
    answer = client.follower.now(t);
    if is_decode || ~strcmp(answer.why, told)
        told = answer.why;
        parts = {};
        for name = fieldnames(answer.value)'
            numbers = strjoin(arrayfun(@(v) sprintf('%.17g', v), answer.value.(name{1})(:)', ...
                'UniformOutput', false), ',');
            if isempty(answer.value.(name{1}))
                parts{end + 1} = sprintf('"%s":null', name{1});
            else
                parts{end + 1} = sprintf('"%s":[%s]', name{1}, numbers);
            end
        end
        rest = rmfield(answer, {'value', 't_window', 'age_s'});
        text = jsonencode(rest);
        printf('{"value":{%s},%s\n', strjoin(parts, ','), text(2:end));
        fflush(stdout);
    elseif isempty(frames)
        pause(0.005);
    end
end
