// A client of spikeloop for .NET and Unity, by NetMQ 4. SpikeloopFollower.cs holds the rules.
//
//     var client = new SpikeloopClient("tcp://127.0.0.1:5570");
//     client.Follower.Safe["velocity"] = new[] { 0.0, 0.0 };
//     void Update() { Move(client.Update().Value["velocity"]); }   // in Unity: each frame

using System;
using System.Collections.Generic;
using NetMQ;
using NetMQ.Sockets;

namespace Spikeloop
{
    /// <summary>Follows a daemon's decodes; one thread uses it.</summary>
    public sealed class SpikeloopClient : IDisposable
    {
        public readonly Follower Follower = new Follower();
        private readonly SubscriberSocket socket = new SubscriberSocket();

        public SpikeloopClient(string endpoint = "tcp://127.0.0.1:5570")
        {
            // Else a mended link brings old decodes. The daemon goes by the last one: it asks nobody.
            socket.Options.HeartbeatInterval = TimeSpan.FromMilliseconds(500);
            socket.Options.HeartbeatTimeout = TimeSpan.FromSeconds(2);
            socket.Options.HeartbeatTtl = TimeSpan.FromSeconds(2);
            foreach (var topic in Follower.Topics) socket.Subscribe(topic);
            socket.Connect(endpoint);
        }

        /// <summary>Take in all that waits; what may be acted on now.</summary>
        public Answer Update()
        {
            List<byte[]> frames = null;
            while (socket.TryReceiveMultipartBytes(ref frames))
                Follower.Hear(frames, Follower.Monotonic());
            return Follower.Now(Follower.Monotonic());
        }

        public void Dispose()
        {
            socket.Dispose();
        }
    }
}
