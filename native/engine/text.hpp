// From a sequence's bytes to text that may be shown: whole UTF-8, and never a part of a stop string.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace olm {

// How the bytes are cut into pushes changes when text comes out, never which text.
class TextStage {
  public:
    explicit TextStage(std::vector<std::string> stops);

    // Takes the bytes of one token; appends to `out` what is now certain. True: a stop string is complete. It and
    // what follows it are dropped, and nothing may be pushed after that.
    bool push(std::string_view bytes, std::string & out);

    // The place, in the list given, of the stop string that was complete; -1 while there is none.
    int stopped_by() const { return stopped_by_; }

    // The sequence ended otherwise: what was held back is text after all.
    void finish(std::string & out);

  private:
    std::vector<std::string> stops_;
    std::string              held_;
    int                      stopped_by_ = -1;
};

// Appends `bytes`, every ill-formed part replaced by U+FFFD as Unicode 3.9 recommends ("maximal subparts").
void append_utf8(std::string_view bytes, std::string & out);

// Length of an incomplete but so far well-formed character at the end of `bytes`, 0..3.
size_t open_tail(std::string_view bytes);

}  // namespace olm
