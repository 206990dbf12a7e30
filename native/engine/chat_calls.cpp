// The grammar that holds an answer to calls: a part of the one that the library makes of the whole answer.
#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <sstream>

#include "chat.hpp"

namespace olm {

namespace {

using Rules = std::map<std::string, std::string>;

// GBNF as the library writes it: a rule a line.
Rules rules_of(const std::string & grammar) {
    Rules              rules;
    std::istringstream lines(grammar);
    for (std::string line; std::getline(lines, line);) {
        const size_t sign = line.find(" ::= ");
        if (sign != std::string::npos) {
            rules[line.substr(0, sign)] = line.substr(sign + 5);
        }
    }
    return rules;
}

// The names in a rule's body, outside of literals and character classes.
std::set<std::string> names_in(const std::string & body) {
    std::set<std::string> names;
    char                  closing = 0;
    std::string           name;
    for (size_t n = 0; n <= body.size(); ++n) {
        const char c = n < body.size() ? body[n] : ' ';
        if (closing != 0) {
            n += c == '\\' ? 1 : 0;
            closing = c == closing ? 0 : closing;
        } else if (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_') {
            name += c;
        } else {
            closing = c == '"' ? '"' : c == '[' ? ']' : 0;
            names.insert(std::move(name));
            name.clear();
        }
    }
    return names;
}

// What can be reached from the names, themselves included.
std::set<std::string> reached_from(const Rules & rules, const std::set<std::string> & names) {
    std::set<std::string>    reached;
    std::vector<std::string> open(names.begin(), names.end());
    while (!open.empty()) {
        const std::string name = open.back();
        open.pop_back();
        const auto rule = rules.find(name);
        if (rule != rules.end() && reached.insert(name).second) {
            const auto more = names_in(rule->second);
            open.insert(open.end(), more.begin(), more.end());
        }
    }
    return reached;
}

}  // namespace

std::string call_grammar(const common_chat_params & params) {
    if (params.grammar.empty() || params.parser.empty()) {
        return "";
    }
    common_peg_arena arena;
    arena.load(params.parser);
    const Rules           rules = rules_of(params.grammar);
    std::set<std::string> sections;
    for (common_peg_parser_id id = 0; id < arena.size(); ++id) {
        const auto * rule = std::get_if<common_peg_rule_parser>(&arena.get(id));
        if (rule != nullptr && rule->trigger && rules.count(rule->name) > 0) {
            sections.insert(rule->name);
        }
    }
    // A section of calls and a call in it may both be marked: the grammar begins with what no other one holds.
    std::set<std::string> roots = sections;
    for (const std::string & section : sections) {
        for (const std::string & inner : reached_from(rules, names_in(rules.at(section)))) {
            roots.erase(inner == section ? "" : inner);
        }
    }
    if (roots.empty()) {
        return "";
    }
    std::string root;
    for (const std::string & name : roots) {
        root += (root.empty() ? "" : " | ") + name;
    }
    std::string grammar = "root ::= " + root + "\n";
    for (const std::string & name : reached_from(rules, roots)) {
        grammar += name + " ::= " + rules.at(name) + "\n";
    }
    return grammar;
}

}  // namespace olm
