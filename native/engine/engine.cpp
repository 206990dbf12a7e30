// The engine's outside: commands in, the thread that obeys them, events out. What a step does is in step.cpp.
#include "engine.hpp"

#include <pthread.h>

#include <algorithm>

#include "errors.hpp"

namespace olm {

Engine::Engine(std::shared_ptr<Model> model, const EngineConfig & config) :
    model_(std::move(model)),
    config_(config),
    context_(model_, config_.params, &abort_),
    slots_(config_.n_parallel, config_.swa_full ? 0 : llama_model_n_swa(model_->llama())),
    embedder_(model_, config_),
    batch_(llama_batch_init(config_.n_batch, 0, 1)),
    grammars_(model_, [this] { wake(); }) {
    counts_.memory_bytes = context_.memory_bytes(false);
    counts_.vram_bytes   = context_.memory_bytes(true);
    // The model says "decoder" of every architecture but T5, so what counts is whether there are cells to go on from.
    counts_.can_generate = context_.has_memory() && !llama_model_has_encoder(model_->llama());
    published_           = counts_;
    thread_              = std::thread([this] { run(); });
    pthread_setname_np(thread_.native_handle(), "olm-engine");
}

Engine::~Engine() {
    {
        const std::lock_guard<std::mutex> hold(lock_);
        stopping_ = true;
        abort_.store(true);
        wake_.notify_all();
    }
    outbox_.close();
    thread_.join();
    llama_batch_free(batch_);
}

void Engine::submit(uint64_t id, std::vector<llama_token> prompt, const Args & args) {
    require(stats().can_generate, OLM_E_NOT_SUPPORTED, "this model does not generate text");
    require(!prompt.empty(), OLM_E_INVALID_ARGUMENT, "the prompt has no tokens");
    check_tokens(*model_, prompt.data(), prompt.size());
    if (prompt.size() >= static_cast<size_t>(config_.n_ctx)) {
        throw Error(OLM_E_PROMPT_TOO_LONG, "the prompt has " + std::to_string(prompt.size()) +
                                               " tokens, the context holds " + std::to_string(config_.n_ctx));
    }
    auto sequence = std::make_unique<Sequence>(*model_, id, std::move(prompt), SamplingOptions::read(args, *model_),
                                               Limits::read(args, *model_), config_.n_ctx);
    if (sequence->constraint) {
        sequence->constraint->start(grammars_);
        sequence->held = true;
    }
    Command command{Command::SUBMIT, id};
    command.sequence = std::move(sequence);
    put(std::move(command));
}

void Engine::embed(EmbedJob job) {
    require(!job.inputs.empty(), OLM_E_INVALID_ARGUMENT, "there is nothing to embed");
    for (const auto & input : job.inputs) {
        require(!input.empty(), OLM_E_INVALID_ARGUMENT, "an input has no tokens");
        check_tokens(*model_, input.data(), input.size());
        if (input.size() > static_cast<size_t>(config_.n_ctx)) {
            throw Error(OLM_E_PROMPT_TOO_LONG, "an input has " + std::to_string(input.size()) +
                                                   " tokens, the context holds " + std::to_string(config_.n_ctx));
        }
    }
    Command command{Command::EMBED, job.id};
    command.job = std::move(job);
    put(std::move(command));
}

void Engine::cancel(uint64_t id) {
    put({Command::CANCEL, id});
}

void Engine::pause(uint64_t id, bool paused) {
    put({paused ? Command::PAUSE : Command::RESUME, id});
}

void Engine::put(Command command) {
    const std::lock_guard<std::mutex> hold(lock_);
    require(!stopping_, OLM_E_STOPPED, "the engine has stopped");
    if (command.kind == Command::SUBMIT || command.kind == Command::EMBED) {
        require(live_.insert(command.id).second, OLM_E_DUPLICATE_ID, "a request with this id is running");
    }
    if (command.kind == Command::CANCEL && alone_ && alone_id_ == command.id) {
        abort_.store(true);  // nobody else loses work
    }
    commands_.push_back(std::move(command));
    wake_.notify_one();
}

void Engine::wake() {
    const std::lock_guard<std::mutex> hold(lock_);
    woken_ = true;
    wake_.notify_one();
}

EngineStats Engine::stats() {
    const std::lock_guard<std::mutex> hold(lock_);
    return published_;
}

void Engine::fail_next(Context::Result result, int times) {
    const std::lock_guard<std::mutex> hold(lock_);
    forced_   = result;
    n_forced_ = times;
}

void Engine::run() {
    try {
        loop();
    } catch (...) {
        // A bug or an empty machine. Whoever waits gets an answer; new requests get STOPPED.
        const int code = code_of_current_exception();
        fail_everything(code, olm_last_error());
    }
}

void Engine::loop() {
    for (;;) {
        wait_for_work();
        obey();
        {
            const std::lock_guard<std::mutex> hold(lock_);
            if (stopping_) {
                return;
            }
        }
        step();
        if (embedder_.busy()) {
            embedder_.step(outbox_, ended_);
        }
        publish();
        outbox_.flush();
    }
}

// Sleeps while there is nothing that a step could move.
void Engine::wait_for_work() {
    const bool has_slot = slots_.n_idle() > 0 || std::any_of(sequences_.begin(), sequences_.end(), is_yielding);
    const bool can_step = std::any_of(sequences_.begin(), sequences_.end(), [&](const SequencePtr & sequence) {
        return !sequence->paused && sequence->n_able() > 0 && (sequence->slot >= 0 || has_slot);
    });
    std::unique_lock<std::mutex> hold(lock_);
    if (!can_step && !embedder_.busy()) {
        wake_.wait(hold, [&] { return stopping_ || woken_ || !commands_.empty(); });
    }
}

void Engine::obey() {
    std::vector<Command> commands;
    {
        const std::lock_guard<std::mutex> hold(lock_);
        commands.swap(commands_);
        alone_ = false;
        woken_ = false;
        if (!stopping_) {
            abort_.store(false);
        }
    }
    for (Command & command : commands) {
        obey_one(command);
    }
    sweep();
}

void Engine::obey_one(Command & command) {
    Sequence * sequence = find(command.id);
    switch (command.kind) {
        case Command::SUBMIT:
            command.sequence->turn = counts_.n_steps;
            sequences_.push_back(std::move(command.sequence));
            break;
        case Command::EMBED:
            embedder_.add(std::move(command.job));
            break;
        case Command::CANCEL:
            if (sequence != nullptr) {
                sequence->end(DoneReason::CANCELLED);
                sequence->flush(outbox_);
            } else if (embedder_.cancel(command.id)) {
                outbox_.push(failed(command.id, OLM_E_CANCELLED, "cancelled"));
                ended_.push_back(command.id);
            }
            break;
        case Command::PAUSE:
        case Command::RESUME:
            if (sequence != nullptr) {
                sequence->paused = command.kind == Command::PAUSE;
            }
            break;
    }
}

// Numbers and freed ids become visible before the events that speak of them.
void Engine::publish() {
    counts_.n_running = counts_.n_waiting = counts_.n_paused = 0;
    for (const SequencePtr & sequence : sequences_) {
        (sequence->slot >= 0 ? counts_.n_running : counts_.n_waiting)++;
        counts_.n_paused += sequence->paused ? 1 : 0;
    }
    counts_.n_waiting += embedder_.n_waiting();
    counts_.n_cached_cells = slots_.n_cached();
    const std::lock_guard<std::mutex> hold(lock_);
    published_ = counts_;
    for (const uint64_t id : ended_) {
        live_.erase(id);
    }
    ended_.clear();
}

void Engine::fail_everything(int code, const char * message) {
    const std::string text = message;
    {
        const std::lock_guard<std::mutex> hold(lock_);
        stopping_ = true;
        for (const Command & command : commands_) {
            if (command.kind == Command::SUBMIT || command.kind == Command::EMBED) {
                outbox_.push(failed(command.id, code, text));
            }
        }
        commands_.clear();
    }
    for (const SequencePtr & sequence : sequences_) {
        if (!sequence->ended) {
            outbox_.push(failed(sequence->id, code, text));
        }
    }
    sequences_.clear();
    embedder_.fail_all(code, text.c_str(), outbox_, ended_);
    outbox_.flush();
}

}  // namespace olm
