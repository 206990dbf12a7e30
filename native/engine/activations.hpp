// Sums of squared activations for each weight of a model, taken from its graph while that is computed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ggml.h"

namespace olm {

class Activations {
  public:
    struct Entry {
        std::vector<double>  sums;    // [n_matrices, columns]
        std::vector<int64_t> counts;  // rows: one number for all matrices, or one for each expert
    };

    // llama_context_params::cb_eval, with an Activations as its data.
    static bool on_node(ggml_tensor * node, bool ask, void * self);

    // By the weight's name.
    const std::map<std::string, Entry> & entries() const { return entries_; }

    // Why nothing more is taken; "" while all is well. Exceptions may not cross ggml, so it is kept.
    const std::string & failure() const { return failure_; }

  private:
    bool wants(const ggml_tensor * node) const;
    bool take(const ggml_tensor * node);
    void add_dense(const ggml_tensor * node, const char * data);
    void add_experts(const ggml_tensor * node, const char * data);
    Entry & entry(const std::string & name, size_t n_sums, size_t n_counts);

    std::map<std::string, Entry> entries_;
    std::vector<char>            copied_;   // of memory that is not the host's
    std::vector<char>            chosen_;   // the experts of each token
    std::vector<float>           partial_;
    std::string                  failure_;
};

}  // namespace olm
