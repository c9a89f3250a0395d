// Print this client's answers, one JSON line each. Usage: conformance ENDPOINT STALE_S
#include <iostream>

#include "spikeloop.hpp"

int main(int, char **argv) {
    spikeloop::Options options;
    options.safe["velocity"] = spikeloop::Numbers{0.0, 0.0};
    options.stale_s = std::stod(argv[2]);
    spikeloop::Client client(argv[1], options);
    for (;;) {
        const auto answer = client.wait(std::chrono::milliseconds(10));
        if (!answer) continue;
        spikeloop::Json value = spikeloop::Json::object();
        for (const auto &[name, numbers] : answer->value)
            value[name] = numbers ? spikeloop::Json(*numbers) : spikeloop::Json();
        const spikeloop::Json line = {
            {"value", value}, {"usable", answer->usable}, {"why", answer->why}, {"seq", answer->seq},
            {"run_id", answer->run_id}, {"validity", answer->validity}, {"reason", answer->reason},
            {"late", answer->late}, {"lost", answer->lost}, {"skipped", answer->skipped},
            {"restarts", answer->restarts}, {"refused", answer->refused}};
        std::cout << line.dump() << std::endl;
    }
}
