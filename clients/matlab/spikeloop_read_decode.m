function fields = spikeloop_read_decode(message)
    % Read a decode, JSON or packed, from a row of uint8; an error where it is neither.
    % An output that is null, or holds a null, is empty.
    message = message(:)';
    if numel(message) >= 4 && isequal(char(message(1:4)), 'SLPK')
        fields = unpack(message);
        return
    end
    told = parse(message);
    if ~isstruct(told) || ~isscalar(told) || ~isequal(told.schema, 1)
        error('spikeloop:schema', 'no message of schema 1');
    end
    is_typed = ischar(told.run_id) && ischar(told.validity) && isnumeric(told.seq) && ...
        isscalar(told.seq) && isnumeric(told.t_window) && isscalar(told.t_window) && ...
        isstruct(told.value);
    if ~is_typed
        error('spikeloop:fields', 'a decode whose fields are of other types');
    end
    fields = struct('run_id', told.run_id, 'seq', told.seq, 'beat', 0, ...
        't_window', told.t_window, 'validity', told.validity, 'reason', '', 'late', false, ...
        'value', struct());
    for name = {'beat', 'reason', 'late'}
        if isfield(told, name{1})
            fields.(name{1}) = told.(name{1});
        end
    end
    for name = fieldnames(told.value)'
        fields.value.(name{1}) = numbers_of(told.value.(name{1}));
    end
end

function numbers = numbers_of(told)
    numbers = [];
    if isnumeric(told) && all(isfinite(told))
        numbers = told(:);
    end
end

function told = parse(bytes)
    text = native2unicode(bytes, 'UTF-8');
    if isempty(text)
        error('spikeloop:empty', 'an empty message');
    end
    told = jsondecode(text);
end

function fields = unpack(message)
    validities = {'ok', 'warmup', 'stale', 'paused', 'fault'};
    reasons = {'', 'context_short', 'no_spikes', 'keep_alives_missed', 'incomplete', ...
        'overdue', 'paused', 'stopping', 'non_finite', 'unknown_units', 'backend_error', ...
        'clock_jump', 'clock_uncertain', 'other_clock', 'spikes_rejected', 'source_changed', ...
        'guard', 'hung', 'memory_damaged'};
    if numel(message) < 120
        error('spikeloop:short', 'a packed decode that is cut off in its head');
    end
    n_head = double(typecast(message(9:10), 'uint16'));
    n = double(typecast(message(11:12), 'uint16'));
    n_text = double(typecast(message(13:16), 'uint32'));
    is_whole = n_head >= 120 && numel(message) == n_head + 16 * n + n_text;
    if message(5) ~= 1 || ~is_whole || message(6) >= numel(validities)
        error('spikeloop:packed', 'a packed decode of another version, or a damaged one');
    end
    text = parse(message(end - n_text + 1:end));
    reason = sprintf('code %d', message(7));
    if message(7) < numel(reasons)
        reason = reasons{message(7) + 1};
    end
    fields = struct('run_id', text.run_id, ...
        'seq', double(typecast(message(17:24), 'int64')), ...
        'beat', double(typecast(message(25:32), 'int64')), ...
        't_window', typecast(message(33:40), 'double'), ...
        'validity', validities{message(6) + 1}, 'reason', reason, ...
        'late', bitand(message(8), 1) == 1, 'value', struct());
    at = n_head;
    for name = fieldnames(text.outputs)'
        k = text.outputs.(name{1});
        if at + 8 * k > n_head + 8 * n
            error('spikeloop:packed', 'a packed decode whose text does not fit its numbers');
        end
        fields.value.(name{1}) = numbers_of(typecast(message(at + 1:at + 8 * k), 'double'));
        at = at + 8 * k;
    end
    if at ~= n_head + 8 * n
        error('spikeloop:packed', 'a packed decode whose text does not fit its numbers');
    end
end
