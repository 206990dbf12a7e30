// The self-test of one CPU variant, in a process of its own, because a bad one may fault.
//
//   olm-probe score LIB...   per library one line: "score NAME N", or "crash NAME" (each is loaded in a child of ours)
//   olm-probe test LIB       run small matmuls on it; exit status 0 if every result is right
//
// Each test multiplies quantised weights with a few rows, through every buffer type the variant offers (plain, repacked, AMX: the
// buffer type is what chooses the kernel), and compares with a plain product of the dequantised weights.
// Two threads, because tile configuration is per thread; 1 and 33 rows, because kernels differ for a vector and have a tail.

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace {

constexpr int64_t K = 512;             // a multiple of 256, the largest block of a k-quant
constexpr int64_t N_OUT = 96;          // several tiles of 32
constexpr int64_t ROWS[] = {1, 33};    // a vector; a tile of 32 and a tail
constexpr int N_THREADS = 2;
constexpr double MAX_NMSE = 5e-4;      // upstream's own bound for MUL_MAT in test-backend-ops
constexpr double MAX_ERROR = 0.25;     // of one element, in units of the results' root mean square
constexpr unsigned TIMEOUT_S = 20;     // a loaded machine is slow; a hang is not a pass
const ggml_type TYPES[] = {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_F16};

std::vector<float> noise(size_t n, uint32_t seed) {
    std::vector<float> out(n);
    for (float & x : out) {
        seed = seed * 1664525u + 1013904223u;
        x = (float) ((int32_t) (seed >> 8) - (1 << 23)) / (float) (1 << 23);
    }
    return out;
}

struct weights {
    std::vector<uint8_t> data;  // as quantised
    std::vector<float> plain;   // what that means
};

weights make_weights(ggml_type type) {
    const std::vector<float> f32 = noise(K * N_OUT, 7u + type);
    weights w;
    w.data.resize(ggml_row_size(type, K) * N_OUT);
    w.plain.resize(K * N_OUT);
    ggml_quantize_chunk(type, f32.data(), w.data.data(), 0, N_OUT, K, nullptr);
    ggml_get_type_traits(type)->to_float(w.data.data(), w.plain.data(), K * N_OUT);
    return w;
}

bool is_right(const char * name, const std::vector<float> & got, const weights & w, const std::vector<float> & x, int64_t rows) {
    double error = 0, power = 0, worst = 0;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < N_OUT; o++) {
            double want = 0;
            for (int64_t k = 0; k < K; k++) {
                want += (double) w.plain[o * K + k] * x[r * K + k];
            }
            const double diff = got[r * N_OUT + o] - want;
            if (!std::isfinite(diff)) {
                printf("test %s not finite\n", name);
                return false;
            }
            error += diff * diff;
            power += want * want;
            worst = std::fmax(worst, std::fabs(diff));
        }
    }
    const double nmse = error / power;
    const double relative = worst / std::sqrt(power / (double) (rows * N_OUT));
    const bool right = nmse <= MAX_NMSE && relative <= MAX_ERROR;
    printf("test %s nmse %.3g max %.3g %s\n", name, nmse, relative, right ? "right" : "wrong");
    return right;
}

// Returns 1 right, 0 wrong, -1 the variant does not offer it.
int run_one(ggml_backend_t backend, ggml_backend_buffer_type_t buft, const weights & w, ggml_type type, int64_t rows) {
    const ggml_init_params params = {ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, true};
    ggml_context * wctx = ggml_init(params);
    ggml_context * ctx = ggml_init(params);
    ggml_tensor * a = ggml_new_tensor_2d(wctx, type, K, N_OUT);
    ggml_tensor * b = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, K, rows);
    ggml_backend_buffer_t wbuf = ggml_backend_alloc_ctx_tensors_from_buft(wctx, buft);
    ggml_tensor * y = ggml_mul_mat(ctx, a, b);
    ggml_backend_buffer_t buf = ggml_backend_alloc_ctx_tensors(ctx, backend);
    int result = -1;
    if (wbuf && buf && ggml_backend_supports_op(backend, y)) {
        const std::vector<float> x = noise(K * rows, 99u + (uint32_t) rows);
        ggml_backend_tensor_set(a, w.data.data(), 0, w.data.size());
        ggml_backend_tensor_set(b, x.data(), 0, ggml_nbytes(b));
        ggml_cgraph * graph = ggml_new_graph_custom(ctx, 8, false);
        ggml_build_forward_expand(graph, y);
        std::vector<float> got(N_OUT * rows, NAN);
        if (ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS) {
            ggml_backend_tensor_get(y, got.data(), 0, ggml_nbytes(y));
        }
        char name[96];
        snprintf(name, sizeof name, "%s %s %d", ggml_backend_buft_name(buft), ggml_type_name(type), (int) rows);
        result = is_right(name, got, w, x, rows);
    }
    ggml_backend_buffer_free(wbuf);
    ggml_backend_buffer_free(buf);
    ggml_free(wctx);
    ggml_free(ctx);
    return result;
}

void only_errors(ggml_log_level level, const char * text, void * /* data */) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

int test(const char * path) {
    ggml_log_set(only_errors, nullptr);
    ggml_backend_reg_t reg = ggml_backend_load(path);
    if (!reg || ggml_backend_reg_dev_count(reg) == 0) {
        printf("fail cannot be loaded on this machine\n");
        return 1;
    }
    ggml_backend_dev_t dev = ggml_backend_reg_dev_get(reg, 0);
    ggml_backend_t backend = ggml_backend_dev_init(dev, nullptr);
    if (!backend) {
        printf("fail its device does not start\n");
        return 1;
    }
    auto set_n_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (set_n_threads) {
        set_n_threads(backend, N_THREADS);
    }
    std::vector<ggml_backend_buffer_type_t> bufts = {ggml_backend_dev_buffer_type(dev)};
    auto extra = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t * buft = extra ? extra(dev) : nullptr; buft && *buft; buft++) {
        bufts.push_back(*buft);
    }
    int right = 0, wrong = 0;
    for (ggml_type type : TYPES) {
        const weights w = make_weights(type);
        for (ggml_backend_buffer_type_t buft : bufts) {
            for (int64_t rows : ROWS) {
                const int result = run_one(backend, buft, w, type, rows);
                right += result == 1;
                wrong += result == 0;
            }
        }
    }
    ggml_backend_free(backend);
    printf("%s %d right %d wrong\n", wrong || !right ? "fail" : "pass", right, wrong);
    return wrong || !right;
}

// 0 means "not on this CPU", as in upstream's loader; -1 that the library has no score or does not load.
int score_of(const char * path) {
    void * handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    auto score = handle ? (int (*)()) dlsym(handle, "ggml_backend_score") : nullptr;
    return score ? score() : handle ? 1 : -1;
}

int scores(int n, char ** paths) {
    for (int i = 0; i < n; i++) {
        int ends[2];
        if (pipe(ends) != 0) {
            return 1;
        }
        fflush(stdout);
        const pid_t pid = fork();
        if (pid == 0) {
            alarm(TIMEOUT_S);
            const int score = score_of(paths[i]);
            _exit(write(ends[1], &score, sizeof score) == sizeof score ? 0 : 1);
        }
        close(ends[1]);
        int score = 0, status = 0;
        const bool told = pid > 0 && read(ends[0], &score, sizeof score) == sizeof score;
        close(ends[0]);
        waitpid(pid, &status, 0);
        const char * slash = strrchr(paths[i], '/');
        const char * name = slash ? slash + 1 : paths[i];
        told ? printf("score %s %d\n", name, score) : printf("crash %s\n", name);
    }
    return 0;
}

}  // namespace

int main(int argc, char ** argv) {
    if (argc >= 3 && strcmp(argv[1], "score") == 0) {
        return scores(argc - 2, argv + 2);
    }
    if (argc == 3 && strcmp(argv[1], "test") == 0) {
        setvbuf(stdout, nullptr, _IOLBF, 0);  // what was right before a fault should be seen
        alarm(TIMEOUT_S);
        return test(argv[2]);
    }
    fprintf(stderr, "usage: olm-probe score LIB... | test LIB\n");
    return 2;
}
