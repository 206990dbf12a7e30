#include "args.hpp"

#include <cmath>

#include "errors.hpp"

namespace olm {

namespace {

[[noreturn]] void wrong(const char * key, const char * wanted) {
    throw Error(OLM_E_INVALID_ARGUMENT, std::string("\"") + key + "\" must be " + wanted);
}

}  // namespace

Args::Args(const char * text) :
    object_(text == nullptr || *text == '\0' ? common_json::object() : common_json::parse(text)) {
    require(object_.is_object(), OLM_E_INVALID_ARGUMENT, "the arguments must be a JSON object");
}

bool Args::has(const char * key) const {
    return object_.contains(key) && !object_.at(key).is_null();
}

const common_json & Args::at(const char * key) const {
    return object_.at(key);
}

bool Args::flag(const char * key, bool absent) const {
    if (!has(key)) {
        return absent;
    }
    if (!at(key).is_boolean()) {
        wrong(key, "a boolean");
    }
    return at(key).get<bool>();
}

int64_t Args::integer(const char * key, int64_t absent, int64_t low, int64_t high) const {
    if (!has(key)) {
        return absent;
    }
    if (!at(key).is_number_integer()) {
        wrong(key, "an integer");
    }
    const int64_t value = at(key).get<int64_t>();
    if (value < low || value > high) {
        throw Error(OLM_E_INVALID_ARGUMENT, std::string("\"") + key + "\" is " + std::to_string(value) +
                                                ", must be from " + std::to_string(low) + " to " +
                                                std::to_string(high));
    }
    return value;
}

float Args::number(const char * key, float absent) const {
    if (!has(key)) {
        return absent;
    }
    if (!at(key).is_number()) {
        wrong(key, "a number");
    }
    const float value = static_cast<float>(at(key).get<double>());
    if (!std::isfinite(value)) {
        wrong(key, "a finite number");
    }
    return value;
}

std::string Args::text(const char * key, const std::string & absent) const {
    if (!has(key)) {
        return absent;
    }
    if (!at(key).is_string()) {
        wrong(key, "a string");
    }
    return at(key).get<std::string>();
}

std::vector<std::string> Args::texts(const char * key) const {
    std::vector<std::string> all;
    for (const common_json & item : array(key)) {
        if (!item.is_string()) {
            wrong(key, "an array of strings");
        }
        all.push_back(item.get<std::string>());
    }
    return all;
}

common_json Args::object(const char * key) const {
    if (!has(key)) {
        return common_json::object();
    }
    if (!at(key).is_object()) {
        wrong(key, "an object");
    }
    return at(key);
}

common_json Args::array(const char * key) const {
    if (!has(key)) {
        return common_json::array();
    }
    if (!at(key).is_array()) {
        wrong(key, "an array");
    }
    return at(key);
}

}  // namespace olm
