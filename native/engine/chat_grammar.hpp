// The grammar of a template's answers, as llama.cpp's chat library derives it, prepared for reading a stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat.h"

namespace olm {

// The named parts of an answer that its reader looks at: tags and a few rules of the library's grammars.
enum class Part : uint8_t {
    none,
    content,
    reasoning,
    section,  // from a trigger on
    tool,
    tool_open,
    tool_close,
    tool_id,
    tool_name,
    tool_args,
    arg_name,
    arg_value,
    arg_string,
    arg_close,
    gemma_dict,
    gemma_array,
    gemma_key,
    gemma_key_name,
    gemma_string,
    gemma_text,
    gemma_plain,  // number, bool, null
    gemma_value,
    n_parts,
};

class ChatGrammar {
  public:
    explicit ChatGrammar(const common_chat_parser_params & params);

    const common_peg_arena & arena() const { return arena_; }
    Part part(size_t id) const { return parts_[id]; }
    bool has_part(Part part) const;

    // The parser behind names and wrappers that nobody looks at.
    size_t unwrapped(size_t id) const;

    // It takes any input.
    bool cannot_fail(size_t id) const { return sure_[id]; }

    // Whether parsers in a row take any input that begins with `text`; "" says nothing of it.
    bool takes(const std::vector<size_t> & ids, size_t from, const std::string & text) const;

  private:
    bool                       is_sure(size_t id, std::vector<int8_t> & known) const;
    std::optional<std::string> consume(size_t id, const std::string & text) const;
    bool                       rejects(size_t id, const std::string & text) const;

    common_peg_arena  arena_;
    std::vector<Part> parts_;
    std::vector<bool> sure_;
};

}  // namespace olm
