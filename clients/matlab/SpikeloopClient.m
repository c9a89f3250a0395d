classdef SpikeloopClient < handle
    % Follows the decodes of spikeloop. MATLAB with JeroMQ, or Octave with its package zeromq.
    %
    %   javaaddpath('jeromq-0.6.0.jar')                               % MATLAB, once
    %   client = SpikeloopClient('tcp://127.0.0.1:5570', struct('velocity', [0; 0]), 0.1);
    %   while is_running
    %       answer = client.update();       % what may be acted on now; see ../README.md
    %       move(answer.value.velocity)
    %   end

    properties
        follower
    end

    properties (Access = private)
        socket
        context = []
        is_octave
    end

    methods
        function self = SpikeloopClient(endpoint, safe, stale_s)
            self.follower = SpikeloopFollower(safe, stale_s);
            self.is_octave = exist('OCTAVE_VERSION', 'builtin') ~= 0;
            topics = {'decode', 'heartbeat', 'event'};
            if self.is_octave
                pkg load zeromq
                self.socket = zmq_socket(ZMQ_SUB);
                for topic = topics
                    zmq_setsockopt(self.socket, ZMQ_SUBSCRIBE, topic{1});
                end
                zmq_connect(self.socket, endpoint);
            else
                self.context = javaObject('org.zeromq.ZContext');
                kind = javaMethod('valueOf', 'org.zeromq.SocketType', 'SUB');
                self.socket = self.context.createSocket(kind);
                % Else a mended link brings old decodes. The daemon goes by the last one: it asks nobody.
                self.socket.setHeartbeatIvl(500);
                self.socket.setHeartbeatTimeout(2000);
                self.socket.setHeartbeatTtl(2000);
                for topic = topics
                    self.socket.subscribe(topic{1});
                end
                self.socket.connect(endpoint);
            end
        end

        function answer = update(self)
            % Take in all that waits; what may be acted on now.
            frames = self.receive();
            while ~isempty(frames)
                self.follower.hear(frames, SpikeloopClient.monotonic());
                frames = self.receive();
            end
            answer = self.follower.now(SpikeloopClient.monotonic());
        end

        function frames = receive(self)
            % Take one message, a cell of uint8 rows; empty where none waits.
            frames = {};
            is_more = true;
            while is_more
                if self.is_octave
                    frame = zmq_recv(self.socket, 2 ^ 20, ZMQ_DONTWAIT);
                    if isempty(frames) && isempty(frame)
                        return
                    end
                    is_more = zmq_getsockopt(self.socket, ZMQ_RCVMORE);
                else
                    frame = self.socket.recv(1);  % DONTWAIT
                    if isempty(frames) && isempty(frame)
                        return
                    end
                    is_more = self.socket.hasReceiveMore();
                    frame = typecast(frame, 'uint8');
                end
                frames{end + 1} = uint8(frame(:)');
            end
        end

        function delete(self)
            % Hang up.
            if self.is_octave
                zmq_close(self.socket);
            else
                self.context.close();
            end
        end
    end

    methods (Static)
        function t = monotonic()
            % Seconds on this machine's monotonic clock: on Linux the daemon's.
            t = double(javaMethod('nanoTime', 'java.lang.System')) * 1e-9;
        end
    end
end
