// What the next step computes: a pure decision over a few numbers, apart from everything that acts.
#pragma once

#include <vector>

namespace olm {

struct PlanItem {
    int  n_left;  // tokens of the sequence that are not computed yet, at least 1
    bool stream;  // somebody is reading it token by token: one token, and it goes first
};

struct PlanLimits {
    int n_batch;  // tokens of a step
    int n_chunk;  // prompt tokens of a step while any stream runs
};

// Steps that requests with one set of adapters compute while others wait with another: each change costs a new graph.
constexpr int TURN_STEPS = 4;

// The steps that one set of adapters has had in a row.
struct Turn {
    int n_steps = 0;
    int n_rows  = 0;

    // A long prompt has had enough after one chunk: streams of the other sets wait for their next token.
    bool over(int n_chunk) const { return n_steps >= TURN_STEPS || n_rows >= n_chunk; }
};

// Tokens that each item computes in the next step, [n_items]. Streams come first, one token each. What room remains is
// shared evenly between the prompts, and what a short one leaves goes to the longer: a short prompt never waits for
// the end of a long one, and a long one is never starved.
std::vector<int> plan_step(const std::vector<PlanItem> & items, const PlanLimits & limits);

}  // namespace olm
