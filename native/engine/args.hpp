// Checked reading of the JSON arguments of the C interface. Null counts as absent, as in every API of olm.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.h"

namespace olm {

class Args {
  public:
    // NULL or "" is an empty object; anything but an object is INVALID_ARGUMENT.
    explicit Args(const char * text);
    explicit Args(common_json object) : object_(std::move(object)) {}

    bool has(const char * key) const;
    const common_json & at(const char * key) const;  // only after has()

    bool        flag(const char * key, bool absent) const;
    int64_t     integer(const char * key, int64_t absent, int64_t low, int64_t high) const;
    float       number(const char * key, float absent) const;  // finite
    std::string text(const char * key, const std::string & absent = "") const;
    std::vector<std::string> texts(const char * key) const;
    common_json object(const char * key) const;  // empty object when absent
    common_json array(const char * key) const;   // empty array when absent

  private:
    common_json object_;
};

}  // namespace olm
