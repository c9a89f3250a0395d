// A client of spikeloop in one header. Needs C++17, cppzmq, and nlohmann/json.
//
//     spikeloop::Options options;
//     options.safe["velocity"] = {0.0, 0.0};
//     spikeloop::Client client("tcp://127.0.0.1:5570", options);
//     while (running) move(client.update().value.at("velocity"));
//
// `Answer::value` holds the decode only where that may be acted on; else it holds `safe`.
// The rules are in ../README.md.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <zmq.hpp>

namespace spikeloop {

using Json = nlohmann::json;
using Numbers = std::vector<double>;
/// Numbers of each output; none where there is no safe value either.
using Value = std::map<std::string, std::optional<Numbers>>;

/// Seconds on this machine's monotonic clock: on Linux the one that the daemon's times are of.
inline double monotonic() {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(since).count();
}

struct Options {
    Value safe;             ///< per output, what stands for a value that may not be used
    double stale_s = 0.1;   ///< no decode older than this is used
    double gone_s = 3.0;    ///< so long without any message and the daemon is `gone`
    double offset_s = 0.0;  ///< the daemon's clock less this machine's; see `daemon_clock`
    std::string public_key, secret_key, daemon_key;  ///< of `client.json`, where keys are asked for
};

/// What may be acted on now.
struct Answer {
    Value value;
    bool usable = false;
    std::string why = "none";  ///< "" where usable; a validity, `none`, `old`, `future` or `gone`
    std::int64_t seq = 0;
    std::string run_id, validity, reason;
    bool late = false;
    double t_window = std::numeric_limits<double>::quiet_NaN();
    double age_s = std::numeric_limits<double>::infinity();
    std::int64_t lost = 0, skipped = 0;  ///< of this run
    int restarts = 0, refused = 0;
};

/// A decode's fields that the rules need.
struct Decode {
    std::string run_id, validity, reason;
    std::int64_t seq = 0, beat = 0;
    double t_window = 0.0;
    bool late = false;
    Value value;
};

namespace detail {

inline const char *validities[] = {"ok", "warmup", "stale", "paused", "fault"};
inline const char *reasons[] = {
    "", "context_short", "no_spikes", "keep_alives_missed", "incomplete", "overdue", "paused",
    "stopping", "non_finite", "unknown_units", "backend_error", "clock_jump", "clock_uncertain",
    "other_clock", "spikes_rejected", "source_changed", "guard", "hung", "memory_damaged"};
constexpr std::size_t head_bytes = 120;

template <typename T>
T read(const std::string &message, std::size_t at) {
    T found;  // little-endian, as every machine that this is likely to run on
    std::memcpy(&found, message.data() + at, sizeof found);
    return found;
}

inline Decode unpack(const std::string &message) {
    if (message.size() < head_bytes) throw std::runtime_error("cut off in its head");
    const auto version = read<std::uint8_t>(message, 4), validity = read<std::uint8_t>(message, 5);
    const auto reason = read<std::uint8_t>(message, 6), flags = read<std::uint8_t>(message, 7);
    const std::size_t n_head = read<std::uint16_t>(message, 8), n = read<std::uint16_t>(message, 10);
    const std::size_t n_text = read<std::uint32_t>(message, 12);
    const bool whole = n_head >= head_bytes && message.size() == n_head + 16 * n + n_text;
    if (version != 1 || !whole || validity >= std::size(validities))
        throw std::runtime_error("of another version, or damaged");
    // The order of `outputs` is that of the numbers; plain nlohmann::json would sort it.
    const auto text = nlohmann::ordered_json::parse(message.end() - n_text, message.end());
    Decode decode;
    text.at("run_id").get_to(decode.run_id);
    decode.validity = validities[validity];
    decode.reason = reason < std::size(reasons) ? reasons[reason] : "code " + std::to_string(reason);
    decode.late = flags & 1;
    decode.seq = read<std::int64_t>(message, 16);
    decode.beat = read<std::int64_t>(message, 24);
    decode.t_window = read<double>(message, 32);
    std::size_t i = 0;
    for (const auto &[name, count] : text.at("outputs").items()) {
        Numbers numbers;
        const auto k = count.get<std::size_t>();
        for (std::size_t j = 0; j < k && i < n; ++j, ++i)
            numbers.push_back(read<double>(message, n_head + 8 * i));
        if (numbers.size() != k) throw std::runtime_error("its text does not fit its numbers");
        const bool told = std::all_of(numbers.begin(), numbers.end(), [](double v) { return std::isfinite(v); });
        decode.value[name] = told ? std::optional<Numbers>(numbers) : std::nullopt;
    }
    if (i != n) throw std::runtime_error("its text does not fit its numbers");
    return decode;
}

inline std::optional<Numbers> numbers_of(const Json &told) {
    const auto is_number = [](const Json &v) { return v.is_number(); };
    if (!told.is_array() || !std::all_of(told.begin(), told.end(), is_number)) return std::nullopt;
    return told.get<Numbers>();
}

}  // namespace detail

/// Read a decode, JSON or packed. Throws where it is neither, damaged, or of another version.
inline Decode read_decode(const std::string &message) {
    if (message.compare(0, 4, "SLPK") == 0) return detail::unpack(message);
    const Json fields = Json::parse(message);
    if (!fields.is_object() || fields.at("schema") != 1) throw std::runtime_error("another schema");
    if (!fields.at("seq").is_number_integer() || !fields.at("value").is_object())
        throw std::runtime_error("fields of other types");
    Decode decode;
    fields.at("run_id").get_to(decode.run_id);
    fields.at("validity").get_to(decode.validity);
    fields.at("seq").get_to(decode.seq);
    fields.at("t_window").get_to(decode.t_window);
    decode.beat = fields.value("beat", std::int64_t{0});
    decode.reason = fields.value("reason", "");
    decode.late = fields.value("late", false);
    for (const auto &[name, told] : fields.at("value").items())
        decode.value[name] = detail::numbers_of(told);
    return decode;
}

/// The rules, without sockets: hand it what is heard and ask it what may be acted on.
class Follower {
public:
    explicit Follower(Options options = {}) : options_(std::move(options)) {}

    /// Take in a message that came at `t`, seconds on this clock; true if it is a new decode.
    bool hear(const std::vector<std::string> &frames, double t) {
        if (frames.size() != 2) return false;
        const std::string &topic = frames[0];  // `decode` also subscribes to longer topics
        if (topic != "decode" && topic != "heartbeat" && topic != "event") return false;
        t_heard_ = t;
        if (topic != "decode") return false;
        try {
            return follow(read_decode(frames[1]));
        } catch (const std::exception &) {
            ++refused_;
            return false;
        }
    }

    /// What may be acted on at `t`, seconds on this clock.
    Answer now(double t) {
        if (!t_heard_) t_heard_ = t;
        Answer answer;
        answer.lost = lost_, answer.skipped = skipped_;
        answer.restarts = restarts_, answer.refused = refused_;
        if (decode_) {
            answer.seq = decode_->seq, answer.run_id = decode_->run_id;
            answer.validity = decode_->validity, answer.reason = decode_->reason;
            answer.late = decode_->late, answer.t_window = decode_->t_window;
            answer.age_s = t + options_.offset_s - decode_->t_window;
            if (answer.age_s > options_.stale_s) answer.why = "old";
            else if (decode_->validity != "ok") answer.why = decode_->validity;
            else answer.why = answer.age_s < -options_.stale_s ? "future" : "";  // not our clock
        }
        if (t - *t_heard_ >= options_.gone_s) answer.why = "gone";
        answer.usable = answer.why.empty();
        answer.value = options_.safe;
        for (const auto &[name, numbers] : decode_ ? decode_->value : Value{}) {
            if (answer.usable && numbers) answer.value[name] = numbers;
            else answer.value.try_emplace(name, std::nullopt);
        }
        return answer;
    }

    /// Set the daemon's clock less this machine's.
    void set_offset(double offset_s) { options_.offset_s = offset_s; }

private:
    bool follow(Decode fields) {
        if (decode_ && decode_->run_id == fields.run_id) {
            const auto ahead = fields.seq - decode_->seq;
            if (ahead <= 0) {
                ++refused_;
                return false;
            }
            lost_ += ahead - 1;
            skipped_ += std::max<std::int64_t>(0, fields.beat - decode_->beat - ahead);
        } else if (decode_) {
            ++restarts_;
            lost_ = skipped_ = 0;
        }
        decode_ = std::move(fields);
        return true;
    }

    Options options_;
    std::optional<Decode> decode_;
    std::optional<double> t_heard_;
    std::int64_t lost_ = 0, skipped_ = 0;
    int restarts_ = 0, refused_ = 0;
};

inline void show_keys(zmq::socket_t &socket, const Options &options) {
    if (options.daemon_key.empty()) return;
    socket.set(zmq::sockopt::curve_serverkey, options.daemon_key);
    socket.set(zmq::sockopt::curve_publickey, options.public_key);
    socket.set(zmq::sockopt::curve_secretkey, options.secret_key);
}

/// Follows a daemon's decodes; one thread uses it.
class Client {
public:
    explicit Client(const std::string &endpoint, const Options &options = {})
        : follower(options), socket_(context_, zmq::socket_type::sub) {
        show_keys(socket_, options);
        for (const char *topic : {"decode", "heartbeat", "event"})
            socket_.set(zmq::sockopt::subscribe, topic);
        // Else a mended link brings old decodes. The daemon goes by the last one: it asks nobody.
        socket_.set(zmq::sockopt::heartbeat_ivl, 500);
        socket_.set(zmq::sockopt::heartbeat_timeout, 2000);
        socket_.set(zmq::sockopt::heartbeat_ttl, 2000);
        socket_.set(zmq::sockopt::reconnect_ivl, 20);
        socket_.set(zmq::sockopt::linger, 0);
        socket_.connect(endpoint);
    }

    /// Take in all that waits; what may be acted on now.
    Answer update() {
        while (take(std::chrono::milliseconds(0)).first) {}
        return follower.now(monotonic());
    }

    /// Take in one message; an answer if it is a decode, or if `why` changed meanwhile.
    std::optional<Answer> wait(std::chrono::milliseconds timeout) {
        const bool is_decode = take(timeout).second;
        Answer answer = follower.now(monotonic());
        if (!is_decode && answer.why == told_) return std::nullopt;
        told_ = answer.why;
        return answer;
    }

    Follower follower;

private:
    std::pair<bool, bool> take(std::chrono::milliseconds timeout) {
        zmq::pollitem_t item{socket_.handle(), 0, ZMQ_POLLIN, 0};
        if (zmq::poll(&item, 1, timeout) == 0) return {false, false};
        std::vector<std::string> frames;
        zmq::message_t frame;
        do {
            if (!socket_.recv(frame)) return {false, false};
            frames.push_back(frame.to_string());
        } while (frame.more());
        return {true, follower.hear(frames, monotonic())};
    }

    zmq::context_t context_;
    zmq::socket_t socket_;
    std::string told_;
};

/// The daemon's clock less this machine's, and by how far that may be off, in seconds.
inline std::pair<double, double> daemon_clock(const std::string &control, const Options &options = {}, int tries = 5) {
    zmq::context_t context;
    zmq::socket_t socket(context, zmq::socket_type::req);
    show_keys(socket, options);
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::rcvtimeo, 2000);
    socket.connect(control);
    std::pair<double, double> best{0.0, std::numeric_limits<double>::infinity()};
    for (int i = 0; i < tries; ++i) {
        const double asked = monotonic();
        socket.send(zmq::buffer(std::string(R"({"schema":1,"command":"status","arguments":{}})")));
        zmq::message_t message;
        if (!socket.recv(message)) throw std::runtime_error("no daemon answered at " + control);
        const double within_s = (monotonic() - asked) / 2;
        const Json reply = Json::parse(message.to_string());
        if (reply.at("ok").get<bool>() && within_s < best.second)
            best = {reply.at("result").at("t_sent").get<double>() - asked - within_s, within_s};
    }
    return best;
}

}  // namespace spikeloop
