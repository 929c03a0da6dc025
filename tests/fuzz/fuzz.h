// What a fuzz target and its drivers agree on. With clang the driver is libFuzzer (tests/fuzz/run.sh); in the ordinary build it is
// standalone_main.cc, which mutates the seeds in a fixed order, so that every run of the tests tries the same inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// One input. Ends the process when something that must hold does not.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Well-formed inputs to begin with.
std::vector<std::string> FuzzSeeds();
