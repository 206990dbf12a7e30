// The engine: a thread that runs steps, and the queue of commands that reaches it.
//
// A step: take commands, admit waiting sequences, decide the batch (plan.hpp), decode, sample each row that asked for
// it, push one frame of events. Later stages have their places: a prefix tree at Slots::admit, drafts where rows are
// added, a latency budget in plan_step.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>

#include "config.hpp"
#include "context.hpp"
#include "embed.hpp"
#include "plan.hpp"
#include "sequence.hpp"
#include "slots.hpp"

namespace olm {

struct EngineStats {
    int      n_running          = 0;
    int      n_waiting          = 0;
    int      n_paused           = 0;
    int      n_cached_cells     = 0;
    uint64_t n_steps            = 0;
    uint64_t n_prompt_tokens    = 0;  // computed
    uint64_t n_cached_tokens    = 0;  // found in a slot instead
    uint64_t n_generated_tokens = 0;
    uint64_t n_shifts           = 0;
    uint64_t n_evictions        = 0;
    uint64_t n_preemptions      = 0;
    uint64_t n_failed_steps     = 0;
    uint64_t n_adapter_changes  = 0;
    uint64_t n_dropped_constraints = 0;  // triggered grammars that were given up
    uint64_t decode_ns          = 0;
    uint64_t sample_ns          = 0;
    uint64_t memory_bytes       = 0;
    uint64_t vram_bytes         = 0;
    bool     can_generate       = false;  // it has a memory to go on from: embedding models do not
};

class Engine {
  public:
    Engine(std::shared_ptr<Model> model, const EngineConfig & config);
    ~Engine();
    Engine(const Engine &) = delete;
    Engine & operator=(const Engine &) = delete;

    // Any thread. None waits for a step.
    void submit(uint64_t id, std::vector<llama_token> prompt, const Args & args);
    void embed(EmbedJob job);
    void cancel(uint64_t id);
    void pause(uint64_t id, bool paused);
    EngineStats stats();
    const EngineConfig & config() const { return config_; }
    const Model & model() const { return *model_; }
    Outbox & outbox() { return outbox_; }
    // Tests: the next decodes end with this result instead of being run.
    void fail_next(Context::Result result, int times);

  private:
    struct Command {
        enum Kind { SUBMIT, EMBED, CANCEL, PAUSE, RESUME } kind;
        uint64_t                  id;
        std::unique_ptr<Sequence> sequence = nullptr;
        EmbedJob                  job      = {};
    };
    using SequencePtr = std::unique_ptr<Sequence>;

    // engine.cpp: commands
    void put(Command command);
    void wake();
    void run();
    void loop();
    void wait_for_work();
    void obey();
    void obey_one(Command & command);
    void publish();
    void fail_everything(int code, const char * message);

    // step.cpp: steps
    void step();
    void admit();
    bool yield_slot();
    static bool is_yielding(const SequencePtr & sequence);
    void shift_full();
    void make_room(Sequence & sequence);
    void settle();
    bool plan();
    void keep_one_set(std::vector<Sequence *> & able);
    void add_rows(Sequence & sequence, int n);
    Context::Result decode();
    void advance(bool all);
    void sample_rows();
    void flush();
    void out_of_room();
    void preempt(Sequence & sequence);
    void batch_failed(Context::Result result);
    void fail(Sequence & sequence, int code, const std::string & message);
    void sweep();
    Sequence * find(uint64_t id);

    std::shared_ptr<Model> model_;
    EngineConfig           config_;
    std::atomic<bool>      abort_{false};
    Context                context_;
    Slots                  slots_;
    Embedder               embedder_;
    Outbox                 outbox_;

    // The engine thread's own.
    std::vector<SequencePtr> sequences_;  // in order of arrival; those without a slot wait
    llama_batch              batch_;
    struct Part {
        Sequence * sequence;
        int        n_rows;
        int        logits_row;  // -1: the prompt is not finished
    };
    std::vector<Part>     parts_;
    std::vector<uint64_t> ended_;
    EngineStats           counts_;
    Turn                  turn_;  // of the adapters that the context has now
    bool                  decodes_only_ = false;  // the last step found no room: no prompts in the next
    Context::Result       forced_       = Context::DONE;
    int                   n_forced_     = 0;

    // Shared, under lock_.
    std::mutex                   lock_;
    std::condition_variable      wake_;
    std::vector<Command>         commands_;
    std::unordered_set<uint64_t> live_;
    EngineStats                  published_;
    bool                         stopping_ = false;
    bool                         woken_    = false;  // a helper has something new
    bool                         alone_    = false;  // a decode runs for alone_id_ only: a cancel of it may abort
    uint64_t                     alone_id_ = 0;

    Grammars    grammars_;  // its threads call wake()
    std::thread thread_;  // last: it starts when everything else stands
};

}  // namespace olm

struct olm_engine {
    std::unique_ptr<olm::Engine> engine;
};
