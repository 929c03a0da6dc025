// What the thread sanitizer leaves out, compiled into each program: modules are started with an environment of their own.
//
// gRPC, protobuf and abseil come from the distribution without instrumentation, and absl::Mutex locks by futex, which the sanitizer
// does not see: whatever is handed over inside them looks like a race, and so does the end of an absl::Status, whose references are
// counted there. So a report is left out when one of its stacks passes through them. What remains visible is everything between our
// own threads: control loop, blocking pool, gateway threads, the SDK's link and workers. (ignore_noninstrumented_modules would also
// ignore the locks that those libraries do take, and invent races.)
extern "C" const char* __tsan_default_suppressions() {
  return "race:libgrpc\n"
         "race:libgpr\n"
         "race:libabsl\n"
         "race:libprotobuf\n"
         "race:libupb\n"
         "race:^grpc::\n"
         "race:^google::protobuf\n"
         "race:Status::Unref\n";
}

// It keeps the address of each report, also of one that was left out, and looks through all of them at the next one: with thousands on
// gRPC's own memory a second of calls took minutes. Equal stacks are still reported once.
extern "C" const char* __tsan_default_options() { return "suppress_equal_addresses=0"; }
