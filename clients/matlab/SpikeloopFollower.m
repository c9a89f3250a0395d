classdef SpikeloopFollower < handle
    % The rules of a spikeloop client, without sockets: hand it what is heard, and ask it what may
    % be acted on. MATLAB and Octave. The rules are in ../README.md.
    %
    %   follower = SpikeloopFollower(struct('velocity', [0; 0]), 0.1);
    %   is_new = follower.hear(frames, t);   % frames: a cell of uint8 rows
    %   answer = follower.now(t);            % a struct; answer.value.velocity is a column

    properties
        safe            % struct: per output, what stands for a value that may not be used
        stale_s = 0.1   % no decode older than this is used
        gone_s = 3      % so long without any message and the daemon is gone
        offset_s = 0    % the daemon's clock less this machine's
    end

    properties (Access = private)
        decode = []
        heard_s = []
        lost = 0
        skipped = 0
        restarts = 0
        refused = 0
    end

    methods
        function self = SpikeloopFollower(safe, stale_s)
            self.safe = safe;
            self.stale_s = stale_s;
        end

        function is_new = hear(self, frames, t)
            % Take in a message that came at t, seconds on this clock; true if it is a new decode.
            is_new = false;
            if numel(frames) ~= 2
                return
            end
            topic = char(frames{1});
            if ~any(strcmp(topic, {'decode', 'heartbeat', 'event'}))
                return  % `decode` also subscribes to longer topics
            end
            self.heard_s = t;
            if ~strcmp(topic, 'decode')
                return
            end
            try
                fields = spikeloop_read_decode(frames{2});
            catch
                self.refused = self.refused + 1;
                return
            end
            is_new = self.follow(fields);
        end

        function answer = now(self, t)
            % What may be acted on at t, seconds on this clock.
            if isempty(self.heard_s)
                self.heard_s = t;
            end
            answer = struct('value', self.safe, 'usable', false, 'why', 'none', 'seq', 0, ...
                'run_id', '', 't_window', NaN, 'validity', '', 'reason', '', 'late', false, ...
                'age_s', Inf, 'lost', self.lost, 'skipped', self.skipped, ...
                'restarts', self.restarts, 'refused', self.refused);
            told = struct();
            if ~isempty(self.decode)
                told = self.decode.value;
                for name = {'seq', 'run_id', 't_window', 'validity', 'reason', 'late'}
                    answer.(name{1}) = self.decode.(name{1});
                end
                answer.age_s = t + self.offset_s - self.decode.t_window;
                if answer.age_s > self.stale_s
                    answer.why = 'old';
                elseif ~strcmp(self.decode.validity, 'ok')
                    answer.why = self.decode.validity;
                elseif answer.age_s < -self.stale_s
                    answer.why = 'future';  % its clock is not ours
                else
                    answer.why = '';
                end
            end
            if t - self.heard_s >= self.gone_s
                answer.why = 'gone';
            end
            answer.usable = isempty(answer.why);
            for name = fieldnames(told)'
                numbers = told.(name{1});
                if answer.usable && ~isempty(numbers) && all(isfinite(numbers))
                    answer.value.(name{1}) = numbers(:);
                elseif ~isfield(answer.value, name{1})
                    answer.value.(name{1}) = [];
                end
            end
        end
    end

    methods (Access = private)
        function is_new = follow(self, fields)
            is_new = false;
            before = self.decode;
            if ~isempty(before) && strcmp(before.run_id, fields.run_id)
                ahead = fields.seq - before.seq;
                if ahead <= 0
                    self.refused = self.refused + 1;
                    return
                end
                self.lost = self.lost + ahead - 1;
                self.skipped = self.skipped + max(0, fields.beat - before.beat - ahead);
            elseif ~isempty(before)
                self.restarts = self.restarts + 1;
                self.lost = 0;
                self.skipped = 0;
            end
            self.decode = fields;
            is_new = true;
        end
    end
end
