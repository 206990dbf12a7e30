#include "chat_grammar.hpp"

#include <algorithm>
#include <map>

#include "chat-peg-parser.h"

namespace olm {

namespace {

using Builder = common_chat_peg_builder;

const std::map<std::string, Part> TAGS = {
    {Builder::CONTENT, Part::content},
    {Builder::REASONING, Part::reasoning},
    {Builder::TOOL, Part::tool},
    {Builder::TOOL_OPEN, Part::tool_open},
    {Builder::TOOL_CLOSE, Part::tool_close},
    {Builder::TOOL_ID, Part::tool_id},
    {Builder::TOOL_NAME, Part::tool_name},
    {Builder::TOOL_ARGS, Part::tool_args},
    {Builder::TOOL_ARG_NAME, Part::arg_name},
    {Builder::TOOL_ARG_VALUE, Part::arg_value},
    {Builder::TOOL_ARG_STRING_VALUE, Part::arg_string},
    {Builder::TOOL_ARG_CLOSE, Part::arg_close},
};

const std::map<std::string, Part> GEMMA_RULES = {
    {"gemma4-dict", Part::gemma_dict},         {"gemma4-array", Part::gemma_array},
    {"gemma4-dict-key", Part::gemma_key},      {"gemma4-dict-key-name", Part::gemma_key_name},
    {"gemma4-string", Part::gemma_string},     {"gemma4-string-content", Part::gemma_text},
    {"gemma4-number", Part::gemma_plain},      {"gemma4-bool", Part::gemma_plain},
    {"gemma4-null", Part::gemma_plain},        {"gemma4-dict-kv", Part::gemma_value},
    {"gemma4-value", Part::gemma_value},
};

Part part_of(const common_peg_parser_variant & parser, bool is_gemma) {
    if (const auto * tag = std::get_if<common_peg_tag_parser>(&parser)) {
        const auto found = TAGS.find(tag->tag);
        return found == TAGS.end() ? Part::none : found->second;
    }
    if (const auto * rule = std::get_if<common_peg_rule_parser>(&parser)) {
        const auto found = GEMMA_RULES.find(rule->name);
        if (is_gemma && found != GEMMA_RULES.end()) {
            return found->second;
        }
        return rule->trigger ? Part::section : Part::none;
    }
    return Part::none;
}

bool starts_with(const std::string & text, const std::string & start) {
    return text.compare(0, start.size(), start) == 0;
}

}  // namespace

ChatGrammar::ChatGrammar(const common_chat_parser_params & params) : arena_(params.parser) {
    if (arena_.empty()) {
        arena_ = build_chat_peg_parser([](Builder & p) { return p.content(p.rest()) + p.end(); });
    }
    std::vector<int8_t> known(arena_.size(), -1);
    for (size_t id = 0; id < arena_.size(); ++id) {
        parts_.push_back(part_of(arena_.get(id), params.format == COMMON_CHAT_FORMAT_PEG_GEMMA4));
        sure_.push_back(is_sure(id, known));
    }
}

bool ChatGrammar::has_part(Part part) const {
    return std::find(parts_.begin(), parts_.end(), part) != parts_.end();
}

namespace {

// The one parser inside a wrapper, also of a named part; an invalid id for anything else.
size_t inner(const common_peg_arena & arena, size_t id) {
    const auto & parser = arena.get(id);
    if (const auto * rule = std::get_if<common_peg_rule_parser>(&parser)) {
        return rule->child;
    }
    if (const auto * tag = std::get_if<common_peg_tag_parser>(&parser)) {
        return tag->child;
    }
    if (const auto * atomic = std::get_if<common_peg_atomic_parser>(&parser)) {
        return atomic->child;
    }
    if (const auto * schema = std::get_if<common_peg_schema_parser>(&parser)) {
        return schema->child;
    }
    if (const auto * gbnf = std::get_if<common_peg_gbnf_parser>(&parser)) {
        return gbnf->child;
    }
    if (const auto * ac = std::get_if<common_peg_ac_parser>(&parser)) {
        return ac->child;
    }
    if (const auto * ref = std::get_if<common_peg_ref_parser>(&parser)) {
        return arena.get_rule(ref->name);
    }
    return COMMON_PEG_INVALID_PARSER_ID;
}

}  // namespace

size_t ChatGrammar::unwrapped(size_t id) const {
    while ((parts_.size() <= id || parts_[id] == Part::none) &&
           !std::holds_alternative<common_peg_atomic_parser>(arena_.get(id))) {
        const size_t child = inner(arena_, id);
        if (child == COMMON_PEG_INVALID_PARSER_ID) {
            break;
        }
        id = child;
    }
    return id;
}

bool ChatGrammar::is_sure(size_t id, std::vector<int8_t> & known) const {
    if (known[id] >= 0) {
        return known[id] != 0;
    }
    known[id] = 0;  // what needs itself is not sure
    const auto & parser = arena_.get(id);
    const auto   sure   = [&](size_t child) { return is_sure(child, known); };
    bool         is     = false;
    if (const size_t child = inner(arena_, id); child != COMMON_PEG_INVALID_PARSER_ID) {
        is = sure(child);
    } else if (const auto * sequence = std::get_if<common_peg_sequence_parser>(&parser)) {
        is = std::all_of(sequence->children.begin(), sequence->children.end(), sure);
    } else if (const auto * choice = std::get_if<common_peg_choice_parser>(&parser)) {
        is = std::any_of(choice->children.begin(), choice->children.end(), sure);
    } else if (const auto * repetition = std::get_if<common_peg_repetition_parser>(&parser)) {
        is = repetition->min_count <= 0;
    } else if (const auto * chars = std::get_if<common_peg_chars_parser>(&parser)) {
        is = chars->min_count <= 0;
    } else {
        is = std::holds_alternative<common_peg_epsilon_parser>(parser) ||
             std::holds_alternative<common_peg_space_parser>(parser) ||
             std::holds_alternative<common_peg_until_parser>(parser);
    }
    known[id] = is ? 1 : 0;
    return is;
}

bool ChatGrammar::takes(const std::vector<size_t> & ids, size_t from, const std::string & text) const {
    std::string left = text;
    for (size_t n = from; n < ids.size(); ++n) {
        auto rest = consume(ids[n], left);
        if (!rest) {
            return false;
        }
        left = std::move(*rest);
    }
    return true;
}

// What of `text` is left when the parser has surely taken its beginning; "" if that cannot be said. Nothing: it may fail.
std::optional<std::string> ChatGrammar::consume(size_t id, const std::string & text) const {
    const auto & parser = arena_.get(id);
    if (const size_t child = inner(arena_, id); child != COMMON_PEG_INVALID_PARSER_ID) {
        return consume(child, text);
    }
    if (std::holds_alternative<common_peg_epsilon_parser>(parser)) {
        return text;
    }
    if (cannot_fail(id) && text.empty()) {
        return "";
    }
    if (const auto * literal = std::get_if<common_peg_literal_parser>(&parser)) {
        return starts_with(text, literal->literal) ? std::optional(text.substr(literal->literal.size())) : std::nullopt;
    }
    if (const auto * sequence = std::get_if<common_peg_sequence_parser>(&parser)) {
        std::optional<std::string> left = text;
        for (size_t n = 0; left && n < sequence->children.size(); ++n) {
            left = consume(sequence->children[n], *left);
        }
        return left;
    }
    if (const auto * choice = std::get_if<common_peg_choice_parser>(&parser)) {
        bool may_differ = false;
        for (const size_t child : choice->children) {
            if (auto left = consume(child, text)) {
                return may_differ ? "" : left;
            }
            may_differ = may_differ || !rejects(child, text);
        }
        return std::nullopt;
    }
    if (const auto * repetition = std::get_if<common_peg_repetition_parser>(&parser)) {
        if (repetition->min_count <= 0 && rejects(repetition->child, text)) {
            return text;
        }
        auto left = consume(repetition->child, text);
        if (left && repetition->min_count <= 1) {
            return repetition->max_count == 1 ? left : "";
        }
        return repetition->min_count <= 0 ? std::optional<std::string>("") : std::nullopt;
    }
    if (const auto * peek = std::get_if<common_peg_and_parser>(&parser)) {
        return consume(peek->child, text) ? std::optional(text) : std::nullopt;
    }
    if (const auto * negate = std::get_if<common_peg_not_parser>(&parser)) {
        return rejects(negate->child, text) ? std::optional(text) : std::nullopt;
    }
    if (std::holds_alternative<common_peg_space_parser>(parser)) {
        const size_t first = text.find_first_not_of(" \t\n\r\f\v");
        return first == std::string::npos ? "" : text.substr(first);
    }
    return cannot_fail(id) ? std::optional<std::string>("") : std::nullopt;
}

// The parser surely fails on input that begins with `text`.
bool ChatGrammar::rejects(size_t id, const std::string & text) const {
    const auto & parser = arena_.get(id);
    if (const size_t child = inner(arena_, id); child != COMMON_PEG_INVALID_PARSER_ID) {
        return !cannot_fail(id) && rejects(child, text);
    }
    if (const auto * literal = std::get_if<common_peg_literal_parser>(&parser)) {
        const size_t both = std::min(text.size(), literal->literal.size());
        return text.compare(0, both, literal->literal, 0, both) != 0;
    }
    if (const auto * sequence = std::get_if<common_peg_sequence_parser>(&parser)) {
        return !sequence->children.empty() && rejects(sequence->children.front(), text);
    }
    if (const auto * choice = std::get_if<common_peg_choice_parser>(&parser)) {
        return std::all_of(choice->children.begin(), choice->children.end(),
                           [&](size_t child) { return rejects(child, text); });
    }
    return false;
}

}  // namespace olm
