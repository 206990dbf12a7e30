#include "plan.hpp"

#include <algorithm>
#include <numeric>

namespace olm {

std::vector<int> plan_step(const std::vector<PlanItem> & items, const PlanLimits & limits) {
    std::vector<int> take(items.size(), 0);
    std::vector<size_t> prompts;
    int                 n_streams = 0;
    for (size_t i = 0; i < items.size(); i++) {
        if (!items[i].stream) {
            prompts.push_back(i);
        } else if (n_streams < limits.n_batch) {
            take[i] = 1;
            n_streams++;
        }
    }
    std::stable_sort(prompts.begin(), prompts.end(),
                     [&](size_t a, size_t b) { return items[a].n_left < items[b].n_left; });
    const int room   = limits.n_batch - n_streams;
    int       budget = n_streams > 0 ? std::min(room, limits.n_chunk) : room;
    for (size_t i = 0; i < prompts.size() && budget > 0; i++) {
        const int share = std::max<int>(1, budget / static_cast<int>(prompts.size() - i));
        const int n     = std::min({items[prompts[i]].n_left, share, budget});
        take[prompts[i]] = n;
        budget -= n;
    }
    return take;
}

}  // namespace olm
