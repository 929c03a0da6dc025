#include "bulkhead/jobs.h"

#include <stdexcept>

namespace bulkhead::sdk {

void Jobs::Handle(std::string name, JobHandler handler) {
  if (frozen_) throw std::logic_error("job " + name + ": jobs are registered in Initialize only");
  if (name.empty() || !handler) throw std::invalid_argument("job " + name + ": no name or no handler");
  if (!handlers_.emplace(name, std::move(handler)).second) throw std::invalid_argument("job " + name + " has a handler already");
}

const JobHandler* Jobs::Find(std::string_view name) const {
  auto found = handlers_.find(name);
  return found == handlers_.end() ? nullptr : &found->second;
}

}  // namespace bulkhead::sdk
