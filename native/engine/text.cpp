#include "text.hpp"

#include <algorithm>

namespace olm {

namespace {

constexpr std::string_view REPLACEMENT = "\xEF\xBF\xBD";  // U+FFFD

struct Character {
    size_t n_bytes;   // that belong to it, at least 1
    bool   complete;  // it is a whole character
    bool   open;      // more bytes could make it one
};

// Reads one character by table 3-7 of the Unicode standard: only the second byte's range depends on the first.
Character read_character(std::string_view bytes) {
    const unsigned char lead = bytes[0];
    if (lead < 0x80) {
        return {1, true, false};
    }
    size_t        n    = 0;
    unsigned char low  = 0x80;
    unsigned char high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
        n = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        n    = 3;
        low  = lead == 0xE0 ? 0xA0 : low;
        high = lead == 0xED ? 0x9F : high;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        n    = 4;
        low  = lead == 0xF0 ? 0x90 : low;
        high = lead == 0xF4 ? 0x8F : high;
    } else {
        return {1, false, false};
    }
    for (size_t i = 1; i < n; i++) {
        if (i == bytes.size()) {
            return {i, false, true};
        }
        const unsigned char next = bytes[i];
        if (next < low || next > high) {
            return {i, false, false};
        }
        low  = 0x80;
        high = 0xBF;
    }
    return {n, true, false};
}

// Length of the longest end of `text` that begins `stop` without being all of it.
size_t begun(std::string_view text, std::string_view stop) {
    for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; n--) {
        if (text.substr(text.size() - n) == stop.substr(0, n)) {
            return n;
        }
    }
    return 0;
}

}  // namespace

void append_utf8(std::string_view bytes, std::string & out) {
    while (!bytes.empty()) {
        const Character character = read_character(bytes);
        out.append(character.complete ? bytes.substr(0, character.n_bytes) : REPLACEMENT);
        bytes.remove_prefix(character.n_bytes);
    }
}

size_t open_tail(std::string_view bytes) {
    for (size_t n = 1; n <= std::min<size_t>(3, bytes.size()); n++) {
        const std::string_view tail = bytes.substr(bytes.size() - n);
        if ((static_cast<unsigned char>(tail[0]) & 0xC0) == 0x80) {
            continue;  // not a first byte: look further back
        }
        const Character character = read_character(tail);
        return character.open && character.n_bytes == n ? n : 0;
    }
    return 0;
}

TextStage::TextStage(std::vector<std::string> stops) : stops_(std::move(stops)) {}

bool TextStage::push(std::string_view bytes, std::string & out) {
    held_.append(bytes);

    // The stop that ends first wins, as if the bytes came one by one; of those that end together the longest.
    size_t first_end   = std::string::npos;
    size_t first_start = 0;
    size_t keep        = 0;
    for (size_t i = 0; i < stops_.size(); i++) {
        const std::string & stop = stops_[i];
        if (stop.empty()) {
            continue;
        }
        const size_t start = held_.find(stop);
        if (start == std::string::npos) {
            keep = std::max(keep, begun(held_, stop));
            continue;
        }
        const size_t end = start + stop.size();
        if (end < first_end || (end == first_end && start < first_start)) {
            first_end   = end;
            first_start = start;
            stopped_by_ = static_cast<int>(i);
        }
    }
    if (first_end != std::string::npos) {
        append_utf8(std::string_view(held_).substr(0, first_start), out);
        held_.clear();
        return true;
    }

    keep = std::max(keep, open_tail(held_));
    const size_t n_free = held_.size() - keep;
    append_utf8(std::string_view(held_).substr(0, n_free), out);
    held_.erase(0, n_free);
    return false;
}

void TextStage::finish(std::string & out) {
    append_utf8(held_, out);
    held_.clear();
}

}  // namespace olm
