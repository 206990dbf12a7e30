#include "slots.hpp"

#include <algorithm>

namespace olm {

namespace {

// A shorter likeness than this part of the prompt is worth less than another conversation's cache (llama-server: -sps).
constexpr float MIN_LIKENESS = 0.1f;

int common_prefix(const std::vector<llama_token> & a, const std::vector<llama_token> & b) {
    const size_t n = std::min(a.size(), b.size());
    return static_cast<int>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

}  // namespace

Slots::Slots(int n_slots, int n_swa) : slots_(n_slots), n_swa_(n_swa) {}

// Tokens at the beginning that the slot holds as the sequence would compute them: with the same adapters.
int Slots::shared(int slot, const Sequence & sequence) const {
    return slots_[slot].scales == sequence.limits.scales ? common_prefix(slots_[slot].held, sequence.path) : 0;
}

int Slots::choose(const Sequence & sequence) const {
    int best   = -1;
    int longest = 0;
    int oldest = -1;
    for (int i = 0; i < static_cast<int>(slots_.size()); i++) {
        if (slots_[i].busy) {
            continue;
        }
        const int n = shared(i, sequence);
        if (n > longest) {
            longest = n;
            best    = i;
        }
        if (oldest < 0 || slots_[i].used_at < slots_[oldest].used_at) {
            oldest = i;
        }
    }
    return best >= 0 && longest > MIN_LIKENESS * sequence.path.size() ? best : oldest;
}

// Cuts the slot's memory to what it shares with the sequence; returns how many tokens that leaves.
int Slots::reuse(int slot, const Sequence & sequence, Context & context) {
    // The last token is always computed: its logits are what the first new token is drawn from.
    int n = std::min(shared(slot, sequence), static_cast<int>(sequence.path.size()) - 1);
    if (n > 0 && n < context.length(slot) && !context.truncate(slot, n)) {
        n = 0;  // a recurrent state cannot be turned back
    }
    // A sliding window may have dropped positions that the next token must see; llama.cpp would not say so.
    if (n > 0 && n_swa_ > 0 && context.first_position(slot) > std::max(0, n - n_swa_)) {
        n = 0;
    }
    if (n > 0 && context.length(slot) != n) {
        n = 0;
    }
    if (n == 0) {
        context.clear(slot);
    }
    return n;
}

bool Slots::admit(Sequence & sequence, Context & context) {
    const int slot = choose(sequence);
    if (slot < 0) {
        return false;
    }
    const int n_cached   = reuse(slot, sequence, context);
    slots_[slot].busy    = true;
    slots_[slot].used_at = ++clock_;
    slots_[slot].held.clear();
    slots_[slot].scales = sequence.limits.scales;
    sequence.admitted(slot, n_cached);
    return true;
}

void Slots::release(Sequence & sequence, Context & context) {
    if (sequence.slot < 0) {
        return;
    }
    Slot & slot = slots_[sequence.slot];
    slot.busy    = false;
    slot.used_at = ++clock_;
    const int n  = std::min(sequence.n_clean, sequence.n_done);
    if (n == sequence.n_done || context.truncate(sequence.slot, n)) {
        slot.held.assign(sequence.path.begin(), sequence.path.begin() + n);
    } else {
        context.clear(sequence.slot);
    }
    sequence.slot = -1;
}

void Slots::drop(Sequence & sequence, Context & context) {
    sequence.n_clean = 0;
    sequence.n_done  = 0;
    if (sequence.slot >= 0) {
        context.clear(sequence.slot);
        slots_[sequence.slot].busy = false;
        slots_[sequence.slot].held.clear();
        sequence.slot = -1;
    }
}

bool Slots::evict_one(Context & context) {
    int oldest = -1;
    for (int i = 0; i < static_cast<int>(slots_.size()); i++) {
        const bool frees = !slots_[i].busy && !slots_[i].held.empty();
        if (frees && (oldest < 0 || slots_[i].used_at < slots_[oldest].used_at)) {
            oldest = i;
        }
    }
    if (oldest < 0) {
        return false;
    }
    context.clear(oldest);
    slots_[oldest].held.clear();
    return true;
}

void Slots::forget_all() {
    for (Slot & slot : slots_) {
        slot.held.clear();
    }
}

int Slots::n_idle() const {
    return static_cast<int>(std::count_if(slots_.begin(), slots_.end(), [](const Slot & slot) { return !slot.busy; }));
}

int Slots::n_cached() const {
    size_t n = 0;
    for (const Slot & slot : slots_) {
        n += slot.held.size();
    }
    return static_cast<int>(n);
}

}  // namespace olm
