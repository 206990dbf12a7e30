#include "marks.hpp"

#include <algorithm>

namespace olm {

MarkFinder::MarkFinder(std::vector<std::string> marks) : marks_(std::move(marks)) {
    marks_.erase(std::remove(marks_.begin(), marks_.end(), ""), marks_.end());
    for (const std::string & mark : marks_) {
        longest_ = std::max(longest_, mark.size());
    }
}

bool MarkFinder::push(std::string_view bytes) {
    held_.append(bytes);
    size_t first_end = std::string::npos;
    for (const std::string & mark : marks_) {
        const size_t start = held_.find(mark);
        const size_t end   = start == std::string::npos ? start : start + mark.size();
        if (end < first_end || (end == first_end && end != std::string::npos && mark.size() > found_->size())) {
            first_end = end;
            found_    = &mark;
        }
    }
    if (first_end != std::string::npos) {
        rest_ = held_.substr(first_end);
        held_.clear();
        return true;
    }
    if (held_.size() >= longest_) {
        held_.erase(0, held_.size() - longest_ + (longest_ > 0 ? 1 : 0));
    }
    return false;
}

bool MarkFinder::begun() const {
    const std::string_view held = held_;
    return std::any_of(marks_.begin(), marks_.end(), [&](const std::string & mark) {
        for (size_t n = std::min(held.size(), mark.size() - 1); n > 0; n--) {
            if (held.substr(held.size() - n) == std::string_view(mark).substr(0, n)) {
                return true;
            }
        }
        return false;
    });
}

}  // namespace olm
