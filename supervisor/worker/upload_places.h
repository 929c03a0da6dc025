// How many transfers of modules are under way. Private to this room.
#pragma once

#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "supervisor/base/guarded.h"

namespace bulkhead {

// Thread-safe.
class UploadPlaces {
 public:
  static constexpr int kAny = std::numeric_limits<int>::max();
  UploadPlaces(int of_all, int of_module) : of_all_(of_all), of_module_(of_module) {}

  bool Enter(const std::string& module) {
    return taken_.With([&](Taken& taken) {
      int& mine = taken.of_module[module];
      if (taken.all >= of_all_ || mine >= of_module_) return false;
      ++taken.all;
      ++mine;
      return true;
    });
  }
  void Leave(const std::string& module) {
    taken_.With([&](Taken& taken) {
      --taken.all;
      if (--taken.of_module[module] == 0) taken.of_module.erase(module);
    });
  }

 private:
  struct Taken {
    std::map<std::string, int> of_module;
    int all = 0;
  };
  const int of_all_, of_module_;
  Guarded<Taken> taken_;
};

// A place that is taken, until the last who has it is gone: the call, or whoever works on.
class UploadPlace {
 public:
  // Null: there is none.
  static std::shared_ptr<UploadPlace> Take(std::shared_ptr<UploadPlaces> places, std::string module) {
    if (!places->Enter(module)) return nullptr;
    return std::shared_ptr<UploadPlace>(new UploadPlace(std::move(places), std::move(module)));
  }
  UploadPlace(const UploadPlace&) = delete;
  ~UploadPlace() { places_->Leave(module_); }

 private:
  UploadPlace(std::shared_ptr<UploadPlaces> places, std::string module) : places_(std::move(places)), module_(std::move(module)) {}
  const std::shared_ptr<UploadPlaces> places_;
  const std::string module_;
};

}  // namespace bulkhead
