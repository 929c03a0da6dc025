// The module that the tests of jobs let run: each run of "once" holds a lock that the kernel takes from a process as it dies, so that a second one
// at the same time is seen, whoever is killed; and it queues runs of its own jobs, by call and inside a transaction.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kDeaf{30'000};  // to everything, longer than anybody waits for it

// A byte of the file for each number, of an open file description of its own.
class LockOf {
 public:
  LockOf(const std::string& folder, int64_t n) : fd_(open((folder + "/runs.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = n;
    lock.l_len = 1;
    held_ = fd_ >= 0 && fcntl(fd_, F_OFD_SETLK, &lock) == 0;
  }
  ~LockOf() {
    if (fd_ >= 0) close(fd_);
  }
  LockOf(const LockOf&) = delete;
  bool held() const { return held_; }

 private:
  const int fd_;
  bool held_ = false;
};

EnqueueOptions OptionsOf(const Json& body) {
  EnqueueOptions options;
  options.delay = milliseconds(body.value("delay", 0));
  options.unique_key = body.value("key", "");
  options.priority = body.value("priority", 0);
  return options;
}

class Jobber : public Module {
 public:
  void Initialize(Context& context) override {
    context_ = &context;
    Jobs& jobs = context.jobs();
    jobs.Handle("once", [this](JobContext& job) { return Once(job); });
    jobs.Handle("single", [this](JobContext& job) { return Once(job); });
    jobs.Handle("talk", Talk);
    jobs.Handle("leave", [this](JobContext& job) { return Leave(job); });
    // Does not look whether it was cancelled.
    const auto stubborn = [](JobContext&) -> Json {
      std::this_thread::sleep_for(kDeaf);
      return nullptr;
    };
    jobs.Handle("stubborn", stubborn);
    jobs.Handle("late", stubborn);
    jobs.Handle("stamp", [this](JobContext& job) { return Stamp(job); });
    Router& router = context.router();
    router.Post("/enqueue", [this](Request& request) { return EnqueueOne(request); });
    router.Post("/enqueue-sql", [this](Request& request) { return EnqueueInTransaction(request); });
    router.Post("/notify", [this](Request& request) { return NotifyOne(request); });
    router.Post("/fill", [this](Request& request) { return Fill(request); });
    router.Get("/effects", [this](Request&) {
      Database& database = context_->database();
      Json faults = Json::array();
      const Rows rows = database.Query("SELECT n, what FROM faults LIMIT 20");
      for (int i = 0; i < rows.size(); ++i) faults.push_back(rows[i].ToJson());
      return Ok({{"counts", database.Query("SELECT count(*) AS effects, coalesce(sum(executions), 0)::bigint AS executions FROM effects")[0].ToJson()},
                 {"faults", faults}});
    });
    router.Get("/latency", [this](Request&) {
      return Ok(context_->database()
                    .Query("SELECT count(*) AS count, percentile_cont(0.5) WITHIN GROUP (ORDER BY took) AS p50,"
                           " percentile_cont(0.99) WITHIN GROUP (ORDER BY took) AS p99 FROM stamps")[0]
                    .ToJson());
    });
  }

 private:
  // payload: {"n": number, "ms": how long}
  Json Once(JobContext& job) {
    const int64_t n = job.payload().at("n").get<int64_t>();
    Database& database = context_->database();
    const LockOf lock(context_->data_dir(), n);
    if (!lock.held()) database.Query("INSERT INTO faults VALUES ($1::bigint, 'two at a time')", {n});
    if (const int ms = job.payload().value("ms", 0); ms > 0) job.WaitFor(milliseconds(ms));
    job.ThrowIfCancelled();
    const Rows written = database.Query(
        "INSERT INTO effects AS e (n, fence) VALUES ($1::bigint, $2::bigint) ON CONFLICT (n) DO UPDATE SET fence = excluded.fence,"
        " executions = e.executions + 1 WHERE e.fence < excluded.fence",
        {n, job.fence()});
    if (written.affected() == 0) database.Query("INSERT INTO faults VALUES ($1::bigint, 'an older fence came later')", {n});
    return {{"n", n}, {"attempt", job.attempt()}};
  }

  // payload: {"lines": number, "ms": between them}
  static Json Talk(JobContext& job) {
    const int lines = job.payload().value("lines", 3);
    for (int i = 1; i <= lines; ++i) {
      job.Log(i % 2 == 0 ? "warn" : "info", "line " + std::to_string(i));
      job.Progress(double(i) / lines, "said " + std::to_string(i));
      job.WaitFor(milliseconds(job.payload().value("ms", 0)));
      job.ThrowIfCancelled();
    }
    return lines;
  }

  // payload: {"files": [{"name", "type", "text" or "size", "byPath"}], "ms": rest behind them, "fails": each attempt does, "dieAt": attempt,
  // "onlyAt": attempt that leaves}
  Json Leave(JobContext& job) {
    const Json& payload = job.payload();
    Json refused = Json::array();
    if (payload.value("onlyAt", job.attempt()) == job.attempt()) {
      for (const Json& file : payload.at("files")) {
        std::string bytes = file.value("text", "");
        for (int64_t i = 0, size = file.value("size", int64_t{0}); i < size; ++i) bytes += static_cast<char>((i * 31 + i / 256) % 251);
        const std::string name = file.at("name").get<std::string>(), type = file.value("type", "");
        try {
          if (file.value("byPath", false)) {
            const std::string path = context_->data_dir() + "/" + job.run_id();
            std::ofstream(path, std::ios::binary) << bytes;
            job.ArtifactFile(name, type, path);
            unlink(path.c_str());
          } else {
            job.Artifact(name, type, bytes);
          }
        } catch (const HostError& error) {
          refused.push_back({{"name", name}, {"why", error.what()}, {"transient", error.transient()}});
        }
      }
    }
    job.WaitFor(milliseconds(payload.value("ms", 0)));
    if (payload.value("dieAt", 0) == job.attempt()) _exit(7);
    if (payload.value("fails", false)) throw JobFailure("AS_TOLD", "the run was told to fail");
    return {{"refused", refused}, {"attempt", job.attempt()}};
  }

  // payload: {"n": number, "at": when it was queued, seconds since 1970}
  Json Stamp(JobContext& job) {
    const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    if (job.payload().is_object() && job.payload().contains("at")) {
      context_->database().Query("INSERT INTO stamps VALUES ($1::bigint, $2::float8) ON CONFLICT DO NOTHING",
                                 {job.payload().at("n").get<int64_t>(), now - job.payload().at("at").get<double>()});
    }
    return nullptr;
  }

  Response EnqueueOne(Request& request) {
    const Json body = Json::parse(request.body());
    Json payload = body.value("payload", Json());
    if (body.value("stamp", false)) payload["at"] = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    try {
      const EnqueuedRun run = context_->Enqueue(body.at("job").get<std::string>(), payload, OptionsOf(body));
      return Ok({{"id", run.id}, {"existed", run.existed}});
    } catch (const HostError& error) {
      throw HttpError(error.transient() ? 503 : 400, "HOST_ERROR", error.what());
    }
  }

  // "rollback": true takes everything back.
  Response EnqueueInTransaction(Request& request) {
    const Json body = Json::parse(request.body());
    std::string id;
    try {
      context_->database().Transact([&](Transaction& transaction) {
        id = context_->Enqueue(transaction, body.at("job").get<std::string>(), body.value("payload", Json()), OptionsOf(body));
        if (body.value("rollback", false)) throw std::runtime_error("as it was told");
      });
    } catch (const DatabaseError& error) {
      throw HttpError(400, "DATABASE_ERROR", std::string(error.what()) + " " + error.sqlstate());
    } catch (const std::runtime_error&) {
      return Ok({{"id", id}, {"rolledBack", true}});
    }
    return Ok({{"id", id}});
  }

  // The notification; "sql": in a transaction, which "rollback" takes back.
  Response NotifyOne(Request& request) {
    const Json body = Json::parse(request.body());
    const Notification notification{body.at("channel").get<std::string>(), body.value("to", std::vector<std::string>()), body.value("subject", ""),
                                    body.value("text", ""), body.value("html", ""), body.value("data", Json())};
    std::string id;
    try {
      if (!body.value("sql", false)) return Ok({{"id", context_->Notify(notification)}});
      context_->database().Transact([&](Transaction& transaction) {
        id = context_->Notify(transaction, notification);
        if (body.value("rollback", false)) throw std::runtime_error("as it was told");
      });
    } catch (const HostError& error) {
      throw HttpError(error.transient() ? 503 : 400, "HOST_ERROR", error.what());
    } catch (const DatabaseError& error) {
      throw HttpError(400, "DATABASE_ERROR", std::string(error.what()) + " " + error.sqlstate());
    } catch (const std::runtime_error&) {
      return Ok({{"id", id}, {"rolledBack", true}});
    }
    return Ok({{"id", id}});
  }

  // {"job", "from", "count", "ms"}: so many runs by one statement, numbered.
  Response Fill(Request& request) {
    const Json body = Json::parse(request.body());
    const int64_t from = body.value("from", int64_t{0}), count = body.at("count").get<int64_t>();
    context_->database().Query(
        "SELECT count(bulkhead.enqueue($1, jsonb_build_object('n', n, 'ms', $4::int))) FROM generate_series($2::bigint, $3::bigint) AS n",
        {body.at("job").get<std::string>(), from, from + count - 1, body.value("ms", 0)});
    return Ok({{"queued", count}});
  }

  Context* context_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) { return Run<Jobber>(argc, argv); }
