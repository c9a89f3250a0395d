// The rules of a spikeloop client, without sockets: hand it what is heard, ask it what may be acted
// on. C# 7, Newtonsoft.Json (in Unity: com.unity.nuget.newtonsoft-json). The rules are in
// ../README.md; SpikeloopClient.cs beside this file connects it by NetMQ.

using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Text;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

namespace Spikeloop
{
    /// <summary>What may be acted on now.</summary>
    public sealed class Answer
    {
        /// <summary>Per output, the decode's numbers where usable, else the safe ones or null.</summary>
        public Dictionary<string, double[]> Value = new Dictionary<string, double[]>();

        /// <summary>"" where usable; a validity, `none`, `old`, `future` or `gone`.</summary>
        public string Why = "none";

        public bool Usable { get { return Why == ""; } }
        public long Seq, Lost, Skipped;
        public int Restarts, Refused;
        public string RunId = "", Validity = "", Reason = "";
        public bool Late;
        public double TWindow = double.NaN, AgeS = double.PositiveInfinity;
    }

    /// <summary>Follows the decodes that it is handed.</summary>
    public sealed class Follower
    {
        public static readonly string[] Topics = { "decode", "heartbeat", "event" };

        /// <summary>Per output, what stands for a value that may not be used.</summary>
        public readonly Dictionary<string, double[]> Safe = new Dictionary<string, double[]>();

        /// <summary>No decode older than this is used, seconds.</summary>
        public double StaleS = 0.1;

        /// <summary>So long without any message and the daemon is `gone`, seconds.</summary>
        public double GoneS = 3.0;

        /// <summary>The daemon's clock less this machine's, seconds.</summary>
        public double OffsetS;

        private Decode decode;
        private double heardS = double.NaN;
        private long lost, skipped;
        private int restarts, refused;

        /// <summary>Seconds on this machine's monotonic clock: on Linux the daemon's.</summary>
        public static double Monotonic()
        {
            return Stopwatch.GetTimestamp() / (double)Stopwatch.Frequency;
        }

        /// <summary>Take in a message that came at `t`; true if it is a new decode.</summary>
        public bool Hear(IList<byte[]> frames, double t)
        {
            if (frames.Count != 2) return false;
            var topic = Encoding.ASCII.GetString(frames[0]);
            if (!Topics.Contains(topic)) return false; // `decode` also subscribes to longer topics
            heardS = t;
            if (topic != "decode") return false;
            try
            {
                return Follow(Decode.Read(frames[1]));
            }
            catch (Exception error) when (
                error is JsonException || error is FormatException || error is InvalidCastException
                || error is ArgumentException || error is OverflowException)
            {
                refused++;
                return false;
            }
        }

        /// <summary>What may be acted on at `t`, seconds on this clock.</summary>
        public Answer Now(double t)
        {
            if (double.IsNaN(heardS)) heardS = t;
            var answer = new Answer
            {
                Lost = lost, Skipped = skipped, Restarts = restarts, Refused = refused,
            };
            if (decode != null)
            {
                answer.Seq = decode.Seq;
                answer.RunId = decode.RunId;
                answer.Validity = decode.Validity;
                answer.Reason = decode.Reason;
                answer.Late = decode.Late;
                answer.TWindow = decode.TWindow;
                answer.AgeS = t + OffsetS - decode.TWindow;
                if (answer.AgeS > StaleS) answer.Why = "old";
                else if (decode.Validity != "ok") answer.Why = decode.Validity;
                else answer.Why = answer.AgeS < -StaleS ? "future" : ""; // not our clock
            }
            if (t - heardS >= GoneS) answer.Why = "gone";
            foreach (var safe in Safe) answer.Value[safe.Key] = safe.Value;
            if (decode == null) return answer;
            foreach (var told in decode.Value)
            {
                if (answer.Usable && told.Value != null) answer.Value[told.Key] = told.Value;
                else if (!answer.Value.ContainsKey(told.Key)) answer.Value[told.Key] = null;
            }
            return answer;
        }

        private bool Follow(Decode next)
        {
            if (decode != null && decode.RunId == next.RunId)
            {
                var ahead = next.Seq - decode.Seq;
                if (ahead <= 0)
                {
                    refused++;
                    return false;
                }
                lost += ahead - 1;
                skipped += Math.Max(0, next.Beat - decode.Beat - ahead);
            }
            else if (decode != null)
            {
                restarts++;
                lost = skipped = 0;
            }
            decode = next;
            return true;
        }
    }

    /// <summary>The fields of a decode that the rules need.</summary>
    internal sealed class Decode
    {
        private const int HeadBytes = 120;
        private static readonly string[] Validities = { "ok", "warmup", "stale", "paused", "fault" };
        private static readonly string[] Reasons =
        {
            "", "context_short", "no_spikes", "keep_alives_missed", "incomplete", "overdue",
            "paused", "stopping", "non_finite", "unknown_units", "backend_error", "clock_jump",
            "clock_uncertain", "other_clock", "spikes_rejected", "source_changed", "guard", "hung", "memory_damaged",
        };

        public string RunId, Validity, Reason;
        public long Seq, Beat;
        public double TWindow;
        public bool Late;
        public readonly List<KeyValuePair<string, double[]>> Value =
            new List<KeyValuePair<string, double[]>>();

        /// <summary>Read a decode, JSON or packed; throws where it is neither.</summary>
        public static Decode Read(byte[] message)
        {
            var isPacked = message.Length >= 4 && Encoding.ASCII.GetString(message, 0, 4) == "SLPK";
            return isPacked ? Unpack(message) : FromJson(Parse(message, 0, message.Length));
        }

        private static JObject Parse(byte[] bytes, int from, int length)
        {
            var text = new UTF8Encoding(false, true).GetString(bytes, from, length);
            using (var reader = new JsonTextReader(new StringReader(text)))
            {
                reader.DateParseHandling = DateParseHandling.None;
                var found = JObject.Load(reader);
                if (reader.Read()) throw new FormatException("more than one object");
                return found;
            }
        }

        private static JToken Need(JObject fields, string name, params JTokenType[] types)
        {
            var found = fields[name];
            if (found == null || !types.Contains(found.Type)) throw new FormatException(name);
            return found;
        }

        private static Decode FromJson(JObject fields)
        {
            if ((long)Need(fields, "schema", JTokenType.Integer) != 1) throw new FormatException("schema");
            var decode = new Decode
            {
                RunId = (string)Need(fields, "run_id", JTokenType.String),
                Validity = (string)Need(fields, "validity", JTokenType.String),
                Seq = (long)Need(fields, "seq", JTokenType.Integer),
                TWindow = (double)Need(fields, "t_window", JTokenType.Float, JTokenType.Integer),
                Beat = (long?)fields["beat"] ?? 0,
                Reason = (string)fields["reason"] ?? "",
                Late = (bool?)fields["late"] ?? false,
            };
            foreach (var told in ((JObject)Need(fields, "value", JTokenType.Object)).Properties())
                decode.Add(told.Name, Numbers(told.Value));
            return decode;
        }

        private static double[] Numbers(JToken told)
        {
            var list = told as JArray;
            var isNumbers = list != null
                && list.All(v => v.Type == JTokenType.Float || v.Type == JTokenType.Integer);
            return isNumbers ? list.Select(v => (double)v).ToArray() : null;
        }

        private static Decode Unpack(byte[] message)
        {
            if (message.Length < HeadBytes) throw new FormatException("cut off in its head");
            int nHead = BitConverter.ToUInt16(message, 8), n = BitConverter.ToUInt16(message, 10);
            long nText = BitConverter.ToUInt32(message, 12);
            var isWhole = nHead >= HeadBytes && message.Length == nHead + 16 * n + nText;
            if (message[4] != 1 || !isWhole || message[5] >= Validities.Length)
                throw new FormatException("of another version, or damaged");
            var text = Parse(message, message.Length - (int)nText, (int)nText);
            var decode = new Decode
            {
                RunId = (string)Need(text, "run_id", JTokenType.String),
                Validity = Validities[message[5]],
                Reason = message[6] < Reasons.Length ? Reasons[message[6]] : "code " + message[6],
                Late = (message[7] & 1) != 0,
                Seq = BitConverter.ToInt64(message, 16),
                Beat = BitConverter.ToInt64(message, 24),
                TWindow = BitConverter.ToDouble(message, 32),
            };
            var i = 0;
            foreach (var output in ((JObject)Need(text, "outputs", JTokenType.Object)).Properties())
            {
                var k = (int)output.Value;
                if (k < 0 || i + k > n) throw new FormatException("its text does not fit");
                var at = nHead + 8 * i;
                var numbers = Enumerable.Range(0, k)
                    .Select(j => BitConverter.ToDouble(message, at + 8 * j)).ToArray();
                decode.Add(output.Name, numbers.Any(double.IsNaN) ? null : numbers);
                i += k;
            }
            if (i != n) throw new FormatException("its text does not fit");
            return decode;
        }

        private void Add(string name, double[] numbers)
        {
            Value.Add(new KeyValuePair<string, double[]>(name, numbers));
        }
    }
}
