// How much of what a machine has read is certain. Three proofs, from cheap to dear:
//   - the rest of a branch takes any input, so that it cannot fail;
//   - everything that could come instead of the branch is impossible already, so that its failing ends the whole parse;
//   - what would come instead (a shadow, which reads along) has read the same so far.
#include <algorithm>

#include "chat_machine.hpp"

namespace olm {

namespace {

// A shadow's own branches may have shadows. Deeper ones would cost more than the wait that they save.
constexpr int MAX_DEPTH = 2;

// A shadow begins as a copy of the stack: in nesting that no sane answer has, text waits instead.
constexpr size_t MAX_STACK = 1000;

bool is_barrier(const common_peg_parser_variant & parser) {
    return std::holds_alternative<common_peg_and_parser>(parser) || std::holds_alternative<common_peg_not_parser>(parser) ||
           std::holds_alternative<common_peg_atomic_parser>(parser);
}

}  // namespace

// The machine as it goes on when the branch under way in `frame` fails.
Machine::Machine(const Machine & other, size_t frame) :
    grammar_(other.grammar_), input_(other.input_), stack_(other.stack_.begin(), other.stack_.begin() + frame + 1),
    first_mark_(other.stack_[frame].n_marks), floor_(frame), depth_(other.depth_ + 1) {
    for (Frame & copy : stack_) {
        copy.shadow.reset();
        copy.settled = true;  // whoever asked has looked at what lies below
    }
    stack_.back().settled = false;
    give(Reply::fail, stack_.back().branch);
}

bool Machine::may_go_back(const Frame & frame) const {
    const auto & parser = grammar_.arena().get(frame.id);
    if (const auto * choice = std::get_if<common_peg_choice_parser>(&parser)) {
        return frame.n + 1 < choice->children.size();
    }
    if (const auto * repetition = std::get_if<common_peg_repetition_parser>(&parser)) {
        return static_cast<int>(frame.n) >= repetition->min_count;
    }
    return false;
}

// `next`: if the leaf ends at one of some texts, these.
bool Machine::leaf_cannot_fail(const std::vector<std::string> ** next) const {
    if (step_ != Step::call) {
        return false;
    }
    const auto & parser = grammar_.arena().get(call_id_);
    if (const auto * until = std::get_if<common_peg_until_parser>(&parser)) {
        *next = &until->delimiters;
        return true;
    }
    const auto * chars = std::get_if<common_peg_chars_parser>(&parser);
    return std::holds_alternative<common_peg_space_parser>(parser) || (chars != nullptr && n_chars_ >= chars->min_count);
}

// From the leaf outwards: what stands between it and the frame takes whatever comes.
bool Machine::branch_cannot_fail(size_t frame) const {
    const std::vector<std::string> * next = nullptr;
    bool                             sure = leaf_cannot_fail(&next);
    for (size_t n = stack_.size(); n-- > frame + 1;) {
        const Frame & inner  = stack_[n];
        const auto &  parser = grammar_.arena().get(inner.id);
        if (const auto * sequence = std::get_if<common_peg_sequence_parser>(&parser)) {
            if (!sure || inner.n + 1 >= sequence->children.size()) {
                continue;
            }
            const auto takes = [&](const std::string & text) {
                return grammar_.takes(sequence->children, inner.n + 1, text);
            };
            sure = next == nullptr || next->empty() ? takes("") : std::all_of(next->begin(), next->end(), takes);
            next = nullptr;
        } else if (const auto * choice = std::get_if<common_peg_choice_parser>(&parser)) {
            if (!sure) {
                sure = std::any_of(choice->children.begin() + inner.n + 1, choice->children.end(),
                                   [&](size_t child) { return grammar_.cannot_fail(child); });
                next = nullptr;
            }
        } else if (const auto * repetition = std::get_if<common_peg_repetition_parser>(&parser)) {
            const int n_sure = static_cast<int>(inner.n) + (sure ? 1 : 0);
            sure             = n_sure >= repetition->min_count;
            next             = nullptr;
        }
    }
    return sure;
}

size_t Machine::progress() const {
    return state_ != State::waiting ? reply_at_ : step_ == Step::repeat ? stack_.back().branch : scan_;
}

Machine::Limit Machine::certain() {
    Limit limit{first_mark_ + marks_.size(), progress()};
    if (state_ != State::waiting) {
        return limit;
    }
    n_settled_ = std::min(n_settled_, stack_.size());
    for (size_t n = std::max(floor_, n_settled_); n < stack_.size(); ++n) {
        Frame & frame = stack_[n];
        if (is_barrier(grammar_.arena().get(frame.id))) {
            return {std::min(limit.n_marks, frame.n_marks), std::min(limit.at, frame.start)};
        }
        const bool is_repetition = std::holds_alternative<common_peg_repetition_parser>(grammar_.arena().get(frame.id));
        if (is_repetition && limit.at <= frame.branch) {
            return {std::min(limit.n_marks, frame.n_marks), limit.at};  // a round that takes nothing leaves no marks
        }
        const bool is_next = n == std::max(floor_, n_settled_);
        if (frame.settled || !may_go_back(frame)) {
            n_settled_ = is_next ? n + 1 : n_settled_;
            continue;
        }
        if (stack_.size() <= MAX_STACK && branch_cannot_fail(n)) {
            frame.settled = true;
            n_settled_    = is_next ? n + 1 : n_settled_;
            continue;
        }
        if (depth_ >= MAX_DEPTH || stack_.size() > MAX_STACK) {
            return {std::min(limit.n_marks, frame.n_marks), std::min(limit.at, frame.branch)};
        }
        if (frame.shadow == nullptr) {
            frame.shadow.reset(new Machine(*this, n));
        }
        if (frame.shadow->run() == State::failed || leaves_rest(frame, *frame.shadow)) {
            frame.settled = true;
            frame.shadow.reset();
            n_settled_ = is_next ? n + 1 : n_settled_;
            continue;
        }
        const Limit both = agreed(frame, *frame.shadow);
        limit            = {std::min(limit.n_marks, both.n_marks), std::min(limit.at, both.at)};
        if (limit.at <= frame.branch) {
            return limit;
        }
    }
    return limit;
}

// The shadow's parse is over before the text is, and holds nothing that the branch has not: if the branch fails, what it has
// read is text that no grammar takes, whichever way.
bool Machine::leaves_rest(const Frame & frame, const Machine & shadow) const {
    if (shadow.state_ != State::succeeded || shadow.end() >= input_.text.size()) {
        return false;
    }
    size_t n = frame.n_marks - first_mark_;
    for (const Mark & mark : shadow.marks_) {
        if (mark.part == Part::section) {
            continue;  // an empty one
        }
        if (n >= marks_.size() || !(marks_[n] == mark)) {
            return false;
        }
        ++n;
    }
    return true;
}

// How far the branch and its shadow have read the same.
Machine::Limit Machine::agreed(const Frame & frame, Machine & shadow) const {
    const Limit  other = shadow.certain();
    const size_t here  = frame.n_marks - first_mark_;
    const size_t n_own = marks_.size() - here;
    const size_t n_its = other.n_marks - std::min(other.n_marks, shadow.first_mark_);
    size_t       n     = 0;
    while (n < std::min(n_own, n_its) && marks_[here + n] == shadow.marks_[n]) {
        ++n;
    }
    const size_t own_at = n < n_own ? marks_[here + n].at : progress();
    const size_t its_at = n < n_its ? shadow.marks_[n].at : other.at;
    return {frame.n_marks + n, std::min(own_at, its_at)};
}

bool Machine::is_within(Part part, size_t * start) const {
    for (const Frame & frame : stack_) {
        if (grammar_.part(frame.id) == part && frame.start < input_.text.size()) {
            *start = frame.start;
            return true;
        }
    }
    return false;
}

size_t Machine::n_plain(const std::string & text, size_t from) const {
    const bool is_until = state_ == State::waiting && step_ == Step::call && scan_ >= input_.text.size() &&
                          std::holds_alternative<common_peg_until_parser>(grammar_.arena().get(call_id_));
    if (!is_until) {
        return 0;
    }
    const auto & delimiters = std::get<common_peg_until_parser>(grammar_.arena().get(call_id_)).delimiters;
    size_t       end        = text.size();
    for (const std::string & delimiter : delimiters) {
        end = std::min(end, delimiter.empty() ? from : text.find(delimiter[0], from));
    }
    return end - from;
}

size_t Machine::waiting_until() const {
    const bool is_until = state_ == State::waiting && step_ == Step::call &&
                          std::holds_alternative<common_peg_until_parser>(grammar_.arena().get(call_id_));
    return is_until && scan_ < input_.text.size() ? scan_ : std::string::npos;
}

}  // namespace olm
