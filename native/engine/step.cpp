// One step of the engine.
#include <algorithm>
#include <numeric>

#include "engine.hpp"
#include "errors.hpp"
#include "plan.hpp"

namespace olm {

namespace {

constexpr int SHIFT_MARGIN = 4;  // tokens that a context shift never keeps, whatever num_keep says (llama-server)

uint64_t since(Clock::time_point start) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

}  // namespace

void Engine::step() {
    settle();
    admit();
    shift_full();
    if (!plan()) {
        flush();
        return;
    }
    const auto            start  = Clock::now();
    const Context::Result result = decode();
    counts_.decode_ns += since(start);
    counts_.n_steps++;
    switch (result) {
        case Context::DONE: {
            const auto sampled = Clock::now();
            advance(true);
            sample_rows();
            counts_.sample_ns += since(sampled);
            decodes_only_ = false;
            break;
        }
        case Context::ABORTED:
            advance(false);
            break;
        case Context::NO_ROOM:
            out_of_room();
            break;
        case Context::INVALID:
        case Context::BROKEN:
            batch_failed(result);
            break;
    }
    flush();
}

// Learns which grammars have been compiled since the last step, and fails those requests whose grammar is no good.
void Engine::settle() {
    for (const SequencePtr & sequence : sequences_) {
        if (!sequence->held) {
            continue;
        }
        try {
            sequence->held = !sequence->constraint->ready();
        } catch (...) {
            const int code = code_of_current_exception();
            fail(*sequence, code, olm_last_error());
        }
    }
    sweep();
}

void Engine::admit() {
    for (const SequencePtr & sequence : sequences_) {
        if (sequence->slot >= 0 || sequence->paused) {
            continue;
        }
        if (!slots_.admit(*sequence, context_) && !(yield_slot() && slots_.admit(*sequence, context_))) {
            return;
        }
        counts_.n_cached_tokens += sequence->n_done;
    }
}

// A paused sequence lets go of its slot for one that can use it. What it has computed stays there until it is needed, so
// that it finds it again if it resumes soon; else it computes its path anew.
bool Engine::yield_slot() {
    const auto found = std::find_if(sequences_.begin(), sequences_.end(), is_yielding);
    if (found == sequences_.end()) {
        return false;
    }
    slots_.release(**found, context_);
    counts_.n_preemptions++;
    return true;
}

bool Engine::is_yielding(const SequencePtr & sequence) {
    return sequence->paused && sequence->slot >= 0;
}

// A context that is full ends the sequence, or loses the older half of what num_keep does not protect.
void Engine::shift_full() {
    for (const SequencePtr & sequence : sequences_) {
        if (sequence->slot >= 0 && sequence->generating() && sequence->n_done + 1 >= config_.n_ctx) {
            make_room(*sequence);
        }
    }
    sweep();
}

void Engine::make_room(Sequence & sequence) {
    const int bos    = llama_vocab_get_add_bos(model_->vocab()) ? 1 : 0;
    const int wanted = sequence.limits.n_keep < 0 ? sequence.n_prompt() : sequence.limits.n_keep + bos;
    const int n_keep = std::clamp(wanted, 0, std::max(0, config_.n_ctx - SHIFT_MARGIN));
    const int n_gone = (sequence.n_done - n_keep) / 2;
    if (!sequence.limits.shift || n_gone <= 0) {
        sequence.end(DoneReason::LENGTH);
        sequence.flush(outbox_);
        return;
    }
    sequence.path.erase(sequence.path.begin() + n_keep, sequence.path.begin() + n_keep + n_gone);
    counts_.n_shifts++;
    if (context_.can_shift()) {
        context_.discard(sequence.slot, n_keep, n_gone);
        sequence.n_done -= n_gone;
        sequence.n_clean = std::min(sequence.n_clean, n_keep);
        return;
    }
    // This memory cannot move positions: what stays is computed again.
    if (!context_.truncate(sequence.slot, n_keep)) {
        context_.clear(sequence.slot);
        sequence.n_done = 0;
    } else {
        sequence.n_done = n_keep;
    }
    sequence.n_clean = sequence.n_done;
}

// Fills batch_ and parts_; false if there is nothing to compute.
bool Engine::plan() {
    std::vector<Sequence *> able;
    for (const SequencePtr & sequence : sequences_) {
        if (sequence->slot >= 0 && !sequence->paused && sequence->n_able() > 0) {
            able.push_back(sequence.get());
        }
    }
    const auto is_stream = [](const Sequence * s) { return s->generating() && s->n_left() == 1; };
    const auto suspect   = std::find_if(able.begin(), able.end(), [](const Sequence * s) { return s->suspect; });
    if (suspect != able.end()) {
        able = {*suspect};
    } else if (decodes_only_ && std::any_of(able.begin(), able.end(), is_stream)) {
        able.erase(std::remove_if(able.begin(), able.end(), [&](Sequence * s) { return !is_stream(s); }), able.end());
    } else if (decodes_only_ && !able.empty()) {
        able.resize(1);  // only prompts, and no room for all: the oldest
    }

    const bool has_streams = std::any_of(able.begin(), able.end(), is_stream);
    keep_one_set(able);
    // Streams of other adapters wait while this step runs: prompts keep to their chunk for them, too.
    const bool has_waiting = has_streams && std::none_of(able.begin(), able.end(), is_stream);

    const int  n_batch     = has_waiting ? std::min(config_.n_batch, config_.n_chunk) : config_.n_batch;

    std::vector<PlanItem> items;
    for (const Sequence * sequence : able) {
        items.push_back({sequence->n_able(), is_stream(sequence)});
    }
    const std::vector<int> take = plan_step(items, {n_batch, config_.n_chunk});
    // The plan is by age, the rows by slot: where every slot has a region of cells of its own, llama.cpp computes only rows
    // of increasing neighbours in one pass, and takes another pass over the weights at every step back or gap.
    std::vector<size_t> order(able.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return able[a]->slot < able[b]->slot; });
    batch_.n_tokens = 0;
    parts_.clear();
    for (const size_t i : order) {
        if (take[i] > 0) {
            add_rows(*able[i], take[i]);
        }
    }
    turn_.n_steps++;
    turn_.n_rows += batch_.n_tokens;
    return batch_.n_tokens > 0;
}

// Adapters act on a whole batch (spec: llama.cpp 1.11), so a step computes requests of one set of them only: for some steps
// those of the present set, then those that the longest has not computed anything of.
void Engine::keep_one_set(std::vector<Sequence *> & able) {
    if (able.empty()) {
        return;
    }
    const auto is_present = [&](const Sequence * s) { return s->limits.scales == context_.scales(); };
    const auto is_older   = [](const Sequence * a, const Sequence * b) { return a->turn < b->turn; };
    const bool stays      = !turn_.over(config_.n_chunk) && std::any_of(able.begin(), able.end(), is_present);
    if (!stays) {
        const Sequence & next = **std::min_element(able.begin(), able.end(), is_older);
        counts_.n_adapter_changes += is_present(&next) ? 0 : 1;
        context_.use(next.limits.scales);
        turn_ = {};
    }
    able.erase(std::remove_if(able.begin(), able.end(), [&](Sequence * s) { return !is_present(s); }), able.end());
}

void Engine::add_rows(Sequence & sequence, int n) {
    const bool last = n == sequence.n_left();
    for (int i = 0; i < n; i++) {
        const int row         = batch_.n_tokens++;
        const int position    = sequence.n_done + i;
        batch_.token[row]     = sequence.path[position];
        batch_.pos[row]       = position;
        batch_.n_seq_id[row]  = 1;
        batch_.seq_id[row][0] = sequence.slot;
        batch_.logits[row]    = last && i + 1 == n ? 1 : 0;
    }
    sequence.turn = counts_.n_steps + 1;
    parts_.push_back({&sequence, n, last ? batch_.n_tokens - 1 : -1});
}

Context::Result Engine::decode() {
    {
        const std::lock_guard<std::mutex> hold(lock_);
        alone_    = parts_.size() == 1;
        alone_id_ = parts_[0].sequence->id;
        for (const Command & command : commands_) {
            if (alone_ && command.kind == Command::CANCEL && command.id == alone_id_) {
                return Context::ABORTED;
            }
        }
        if (n_forced_ > 0) {
            n_forced_--;
            return forced_;
        }
    }
    return context_.decode(batch_);
}

// Moves the sequences to what the memory now holds. After an abort only the memory knows how much that is.
void Engine::advance(bool all) {
    for (Part & part : parts_) {
        Sequence & sequence = *part.sequence;
        const int  before   = sequence.n_done;
        sequence.n_done     = all ? before + part.n_rows : std::min(context_.length(sequence.slot), before + part.n_rows);
        if (sequence.n_clean == before) {
            sequence.n_clean = sequence.n_done;
        }
        counts_.n_prompt_tokens += sequence.generating() ? 0 : sequence.n_done - before;
        if (sequence.n_left() > 0 && !sequence.generating()) {
            outbox_.push(sequence.progress());
        }
    }
}

void Engine::sample_rows() {
    for (const Part & part : parts_) {
        Sequence & sequence = *part.sequence;
        sequence.suspect    = sequence.suspect && part.logits_row < 0;
        if (part.logits_row < 0) {
            continue;
        }
        try {
            float * row = context_.logits(part.logits_row);
            require(row != nullptr, OLM_E_DECODE, "the model gave no logits");
            sequence.draw(*model_, row);
            counts_.n_generated_tokens++;
        } catch (...) {
            const int code = code_of_current_exception();
            fail(sequence, code, olm_last_error());
        }
    }
}

void Engine::flush() {
    for (const SequencePtr & sequence : sequences_) {
        if (sequence->slot >= 0) {
            sequence->flush(outbox_);
        }
    }
    sweep();
}

// The batch found no cells, and nothing was kept. First what nobody uses goes, be it of a paused sequence, then prompts
// wait for the streams, then the youngest gives way; only a sequence that is alone and still does not fit has failed.
void Engine::out_of_room() {
    if (slots_.evict_one(context_) || (yield_slot() && slots_.evict_one(context_))) {
        counts_.n_evictions++;
        return;
    }
    if (!decodes_only_) {
        decodes_only_ = true;
        return;
    }
    Sequence * youngest  = nullptr;
    int        n_holding = 0;
    for (const SequencePtr & sequence : sequences_) {
        if (sequence->slot >= 0 && sequence->n_done > 0) {
            n_holding++;
            youngest = sequence.get();
        }
    }
    if (n_holding > 1) {
        preempt(*youngest);
    } else {
        fail(*parts_[0].sequence, OLM_E_NO_ROOM, "the request does not fit the memory of the context");
    }
}

// It waits again, first in line among the waiting by its age, and computes its path anew when there is room.
void Engine::preempt(Sequence & sequence) {
    slots_.drop(sequence, context_);
    counts_.n_preemptions++;
}

// A batch of one is its own offender. From a larger one everybody is tried alone, with the memory made anew if need be.
void Engine::batch_failed(Context::Result result) {
    const std::string reason = "decoding failed (" + std::to_string(result) + ")";
    counts_.n_failed_steps++;
    if (parts_.size() == 1) {
        fail(*parts_[0].sequence, OLM_E_DECODE, reason);
    } else {
        for (const Part & part : parts_) {
            part.sequence->suspect = true;
        }
    }
    if (result != Context::BROKEN) {
        return;
    }
    context_.recreate();
    for (const SequencePtr & sequence : sequences_) {
        slots_.drop(*sequence, context_);
    }
    slots_.forget_all();
}

void Engine::fail(Sequence & sequence, int code, const std::string & message) {
    outbox_.push(failed(sequence.id, code, message));
    slots_.drop(sequence, context_);
    sequence.ended = true;  // without a slot it is not flushed: FAILED was its last event
}

// Lets go of what has ended.
void Engine::sweep() {
    const auto over = std::stable_partition(sequences_.begin(), sequences_.end(),
                                            [](const SequencePtr & sequence) { return !sequence->ended; });
    for (auto it = over; it != sequences_.end(); ++it) {
        counts_.n_dropped_constraints += (*it)->constraint ? (*it)->constraint->n_dropped() : 0;
        slots_.release(**it, context_);
        ended_.push_back((*it)->id);
    }
    sequences_.erase(over, sequences_.end());
}

Sequence * Engine::find(uint64_t id) {
    const auto found = std::find_if(sequences_.begin(), sequences_.end(),
                                    [&](const SequencePtr & sequence) { return sequence->id == id; });
    return found == sequences_.end() ? nullptr : found->get();
}

}  // namespace olm
