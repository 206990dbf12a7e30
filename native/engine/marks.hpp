// Finding marks (tags, triggers) in generated text that comes in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace olm {

// How the text is cut into pieces never changes what is found. Empty marks are left out.
class MarkFinder {
  public:
    explicit MarkFinder(std::vector<std::string> marks);

    // Takes the next bytes. True: a mark is complete, the one that ends first (of those that end together the longest).
    // Then found() is it and rest() what follows it, until the next call; the search begins anew behind the mark.
    bool push(std::string_view bytes);
    const std::string & found() const { return *found_; }
    std::string_view rest() const { return rest_; }

    // Whether the end of the text so far may be the beginning of a mark.
    bool begun() const;
    void reset() { held_.clear(); }
    bool empty() const { return marks_.empty(); }

  private:
    std::vector<std::string> marks_;
    size_t                   longest_ = 0;
    std::string              held_;  // the end of the text, one byte shorter than the longest mark
    std::string              rest_;
    const std::string *      found_ = nullptr;
};

}  // namespace olm
