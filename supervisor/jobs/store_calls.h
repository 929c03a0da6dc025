// Calls of the run store from the control loop: done on the blocking pool, answered on the loop, not at all once the owner of
// the guard is gone.
#pragma once

#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/status.h"
#include "supervisor/jobs/run_store.h"

namespace bulkhead {

class StoreCalls {
 public:
  StoreCalls(Loop& loop, BlockingPool& pool, std::shared_ptr<RunStore> store)
      : loop_(loop), pool_(pool), store_(std::move(store)) {}
  StoreCalls(const StoreCalls&) = delete;

  Loop& loop() { return loop_; }

  // `work` gets the RunStore on a pool thread and returns a Status or StatusOr; `then` gets that on the loop. A full pool is
  // answered as a database that is not there.
  template <typename Work, typename Then>
  void Call(Work work, Then then) {
    using Result = decltype(work(std::declval<RunStore&>()));
    auto shared_then = std::make_shared<Then>(std::move(then));
    std::weak_ptr<bool> alive = alive_;
    Loop& loop = loop_;
    const bool taken = pool_.Submit([store = store_, work = std::move(work), shared_then, alive, &loop]() mutable {
      auto result = std::make_shared<Result>(work(*store));
      loop.Post([result, shared_then, alive] {
        if (alive.lock()) (*shared_then)(std::move(*result));
      });
    });
    if (taken) return;
    loop_.Post([shared_then, alive] {
      if (alive.lock())
        (*shared_then)(Result(Error("DATABASE_UNAVAILABLE", "The supervisor is too busy with the database; try again later.")));
    });
  }

  // For other callbacks that come back to the loop: runs `task` there unless the owner is gone.
  template <typename... Args>
  std::function<void(Args...)> GuardedWith(std::type_identity_t<std::function<void(Args...)>> task) const {
    return [alive = std::weak_ptr<bool>(alive_), task = std::move(task)](Args... args) {
      if (alive.lock()) task(std::move(args)...);
    };
  }

 private:
  Loop& loop_;
  BlockingPool& pool_;
  std::shared_ptr<RunStore> store_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bulkhead
