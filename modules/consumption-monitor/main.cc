#include "consumption_module.h"

int main(int argc, char** argv) { return bulkhead::sdk::Run<consumption::ConsumptionModule>(argc, argv); }
