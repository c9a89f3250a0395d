// An operator for Bonsai: NetMQMessages of Bonsai.ZeroMQ's Subscriber in, answers out. Put it and
// ../csharp/SpikeloopFollower.cs into the workflow's folder `Extensions`. See ../README.md.

using System;
using System.Collections.Generic;
using System.ComponentModel;
using System.Linq;
using System.Reactive.Linq;
using Bonsai;
using NetMQ;
using Spikeloop;

/// <summary>Says what may be acted on: with each decode, and when that changes without one.</summary>
[Combinator]
[Description("Says which decode of spikeloop may be acted on now.")]
[WorkflowElementCategory(ElementCategory.Transform)]
public class SpikeloopAnswers
{
    public SpikeloopAnswers()
    {
        Output = "velocity";
        Safe = "0,0";
        StaleSeconds = 0.1;
    }

    [Description("The output whose safe value is given.")]
    public string Output { get; set; }

    [Description("The safe value's numbers, with commas between.")]
    public string Safe { get; set; }

    [Description("No decode older than this is used.")]
    public double StaleSeconds { get; set; }

    public IObservable<Answer> Process(IObservable<NetMQMessage> source)
    {
        return Observable.Defer(() =>
        {
            var follower = new Follower { StaleS = StaleSeconds };
            var culture = System.Globalization.CultureInfo.InvariantCulture;
            follower.Safe[Output] = Safe.Split(',').Select(v => double.Parse(v, culture)).ToArray();
            string told = null;
            var messages = source.Select(message => message.Select(one => one.ToByteArray()).ToList());
            var ticks = Observable.Interval(TimeSpan.FromMilliseconds(10)).Select(_ => (List<byte[]>)null);
            return messages.Merge(ticks).Synchronize().SelectMany(frames =>
            {
                var now = Follower.Monotonic();
                var isDecode = frames != null && follower.Hear(frames, now);
                var answer = follower.Now(now);
                if (!isDecode && answer.Why == told) return Enumerable.Empty<Answer>();
                told = answer.Why;
                return new[] { answer };
            });
        });
    }
}
