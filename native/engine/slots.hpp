// The sequence ids of the memory and what each still holds from its last owner.
//
// Reuse is within one slot, as llama-server's cache_prompt does it. A tree of prefixes shared between slots is a later
// stage: it replaces admit() and keeps the rest.
#pragma once

#include <cstdint>
#include <vector>

#include "context.hpp"
#include "sequence.hpp"

namespace olm {

class Slots {
  public:
    Slots(int n_slots, int n_swa);  // n_swa 0: the memory keeps every position

    // Gives the sequence a slot and the prefix that the slot already holds; false if none is idle.
    bool admit(Sequence & sequence, Context & context);
    // The sequence is over: what it computed stays for whoever comes with the same beginning.
    void release(Sequence & sequence, Context & context);
    // The sequence loses its slot and everything computed.
    void drop(Sequence & sequence, Context & context);
    // Frees the cells of the idle slot that was used longest ago; false if there are none to free.
    bool evict_one(Context & context);
    // The context was recreated: nothing is held any more.
    void forget_all();

    int n_idle() const;
    int n_cached() const;  // tokens held by idle slots

  private:
    struct Slot {
        std::vector<llama_token> held;
        Scales                   scales;  // the adapters that `held` was computed with
        bool                     busy    = false;
        uint64_t                 used_at = 0;
    };

    int shared(int slot, const Sequence & sequence) const;
    int choose(const Sequence & sequence) const;
    int reuse(int slot, const Sequence & sequence, Context & context);

    std::vector<Slot> slots_;
    int               n_swa_;
    uint64_t          clock_ = 0;
};

}  // namespace olm
