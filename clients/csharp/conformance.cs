// Print the follower's answers, one JSON line each. Usage: conformance.exe ENDPOINT STALE_S
// The sockets here are libzmq's by P/Invoke: it runs where there is no NetMQ.

using System;
using System.Collections.Generic;
using System.Globalization;
using System.Runtime.InteropServices;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;
using Spikeloop;

internal static class Conformance
{
    private const int Sub = 2, Subscribe = 6, RcvMore = 13, RcvTimeout = 27;

    [DllImport("libzmq.so.5")] private static extern IntPtr zmq_ctx_new();
    [DllImport("libzmq.so.5")] private static extern IntPtr zmq_socket(IntPtr context, int kind);
    [DllImport("libzmq.so.5")] private static extern int zmq_connect(IntPtr socket, string endpoint);
    [DllImport("libzmq.so.5")] private static extern int zmq_recv(IntPtr socket, byte[] into, UIntPtr size, int flags);
    [DllImport("libzmq.so.5")] private static extern int zmq_setsockopt(IntPtr socket, int option, byte[] value, UIntPtr size);
    [DllImport("libzmq.so.5")] private static extern int zmq_getsockopt(IntPtr socket, int option, ref int value, ref UIntPtr size);

    private static List<byte[]> Receive(IntPtr socket, byte[] buffer)
    {
        var frames = new List<byte[]>();
        int more;
        do
        {
            var n = zmq_recv(socket, buffer, (UIntPtr)buffer.Length, 0);
            if (n < 0) return null;
            var frame = new byte[n];
            Array.Copy(buffer, frame, n);
            frames.Add(frame);
            more = 0;
            var size = (UIntPtr)sizeof(int);
            zmq_getsockopt(socket, RcvMore, ref more, ref size);
        } while (more != 0);
        return frames;
    }

    private static void Main(string[] arguments)
    {
        var follower = new Follower { StaleS = double.Parse(arguments[1], CultureInfo.InvariantCulture) };
        follower.Safe["velocity"] = new[] { 0.0, 0.0 };
        var socket = zmq_socket(zmq_ctx_new(), Sub);
        zmq_setsockopt(socket, RcvTimeout, BitConverter.GetBytes(10), (UIntPtr)4);
        foreach (var topic in Follower.Topics)
            zmq_setsockopt(socket, Subscribe, System.Text.Encoding.ASCII.GetBytes(topic), (UIntPtr)topic.Length);
        zmq_connect(socket, arguments[0]);
        var buffer = new byte[1 << 20];
        string told = null;
        while (true)
        {
            var frames = Receive(socket, buffer);
            var isDecode = frames != null && follower.Hear(frames, Follower.Monotonic());
            var answer = follower.Now(Follower.Monotonic());
            if (!isDecode && answer.Why == told) continue;
            told = answer.Why;
            var line = new JObject
            {
                { "value", JObject.FromObject(answer.Value) }, { "usable", answer.Usable },
                { "why", answer.Why }, { "seq", answer.Seq }, { "run_id", answer.RunId },
                { "validity", answer.Validity }, { "reason", answer.Reason }, { "late", answer.Late },
                { "lost", answer.Lost }, { "skipped", answer.Skipped },
                { "restarts", answer.Restarts }, { "refused", answer.Refused },
            };
            Console.Out.WriteLine(line.ToString(Formatting.None));
            Console.Out.Flush();
        }
    }
}
