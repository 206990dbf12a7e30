#include "matcher.hpp"

#include "errors.hpp"

namespace olm {

namespace {

constexpr char   SPECIAL     = '\xff';  // begins the bytes of a token that is no text (llguidance's convention)
constexpr size_t MAX_REASON  = 400;     // bytes of llguidance's words that go into an error
constexpr int    MAX_TOKEN_BYTES = 1024;  // its trie takes no longer ones

// Bounds on hostile grammars. llguidance's defaults (250,000 states of 1 to 2 KB, half a million symbols) let one request
// take hundreds of megabytes.
constexpr size_t   MAX_LEXER_STATES = 50'000;
constexpr size_t   MAX_GRAMMAR_SIZE = 200'000;

size_t n_words(int n_vocab) {
    return (static_cast<size_t>(n_vocab) + 31) / 32;
}

const char * noun_of(const std::string & kind) {
    return kind == "json_schema" ? "JSON schema" : kind == "regex" ? "regular expression" : "grammar";
}

std::string shorten(const std::string & reason) {
    // A panic is a limit of llguidance's that it does not put in words; where in its code helps nobody here.
    std::string line = in_one_line(reason.substr(0, reason.find("<backtrace>")));
    if (line.size() > MAX_REASON) {
        size_t end = MAX_REASON;
        while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80) {
            end--;  // not in the middle of a character
        }
        line = line.substr(0, end) + "…";
    }
    return line;
}

size_t tokenize_for_guidance(const void * user, const uint8_t * bytes, size_t n_bytes, uint32_t * tokens,
                             size_t n_room) {
    try {
        const auto * self  = static_cast<const GrammarTokenizer *>(user);
        const auto   found = self->cut({reinterpret_cast<const char *>(bytes), n_bytes});
        std::copy(found.begin(), found.begin() + std::min(found.size(), n_room), tokens);
        return found.size();
    } catch (...) {
        return 0;  // out of memory; forced text is then left to the mask
    }
}

}  // namespace

GrammarTokenizer::GrammarTokenizer(std::shared_ptr<Model> model, const std::set<llama_token> & plain) :
    model_(std::move(model)) {
    const Guidance &    g       = guidance();
    const llama_vocab * vocab   = model_->vocab();
    const int           n_vocab = model_->n_vocab();
    special_.resize(n_vocab);
    ends_.resize(n_words(n_vocab));
    blanks_.resize(n_words(n_vocab));
    bytes_.fill(-1);

    std::vector<uint32_t> ends;
    std::vector<uint32_t> lengths(n_vocab);
    std::string           pieces;
    for (llama_token token = 0; token < n_vocab; token++) {
        constexpr int NO_TEXT = LLAMA_TOKEN_ATTR_UNKNOWN | LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNUSED;
        const bool    is_end  = llama_vocab_is_eog(vocab, token);
        const bool    no_text = (llama_vocab_get_attr(vocab, token) & NO_TEXT) != 0;
        special_[token]       = is_end || (no_text && plain.count(token) == 0);
        if (is_end) {
            ends.push_back(token);
            set_bit(ends_, token);
        }
        const std::string piece = piece_of(token, special_[token]);
        lengths[token]          = static_cast<uint32_t>(piece.size());
        pieces += piece;
        if (piece.size() == 1 && bytes_[static_cast<uint8_t>(piece[0])] < 0) {
            bytes_[static_cast<uint8_t>(piece[0])] = token;
        }
        if (!piece.empty() && piece.find_first_not_of(" \t\r\n") == std::string::npos) {
            set_bit(blanks_, token);
        }
    }

    LlgTokenizerInit init    = {};
    init.struct_size         = sizeof init;
    init.vocab_size          = static_cast<uint32_t>(n_vocab);
    init.tok_eos             = ends.empty() ? UINT32_MAX : ends[0];
    init.token_lens          = lengths.data();
    init.token_bytes         = reinterpret_cast<const uint8_t *>(pieces.data());
    init.tok_eos_extra       = ends.size() > 1 ? ends.data() + 1 : nullptr;
    init.tok_eos_extra_count = static_cast<uint32_t>(ends.empty() ? 0 : ends.size() - 1);
    if (is_canonical()) {
        // Text that a grammar leaves no choice about is then cut as the model has learnt it.
        init.tokenize_fn             = tokenize_for_guidance;
        init.tokenize_user_data      = this;
        init.tokenize_assumes_string = true;
    } else {
        init.use_approximate_greedy_tokenize_fn = true;
    }
    char error[512] = "";
    handle_         = g.new_tokenizer_v2(&init, error, sizeof error);
    if (handle_ == nullptr) {
        throw Error(OLM_E_VOCABULARY, "grammars cannot be used with this vocabulary: " + shorten(error));
    }
}

GrammarTokenizer::~GrammarTokenizer() {
    guidance().free_tokenizer(handle_);
}

std::string GrammarTokenizer::piece_of(llama_token token, bool is_special) const {
    std::string piece;
    if (is_special) {
        piece += SPECIAL;
    }
    append_piece(*model_, token, true, piece);
    if (is_special && piece.size() == 1) {
        return "";
    }
    return piece.size() <= MAX_TOKEN_BYTES ? piece : "";
}

std::vector<llama_token> GrammarTokenizer::cut(std::string_view bytes) const {
    auto tokens = tokenize(*model_, bytes.data(), bytes.size(), false, true);
    for (const llama_token token : tokens) {
        if (special_[token]) {  // what looks like one is text all the same
            return tokenize(*model_, bytes.data(), bytes.size(), false, false);
        }
    }
    return tokens;
}

// Whether llama.cpp's tokens of a text mean that text and no more: many vocabularies put a blank before it.
bool GrammarTokenizer::is_canonical() const {
    for (const std::string_view text : {"{\"a b\": [1, true]}", "word", " word", "\n\n- x"}) {
        std::string back;
        for (const llama_token token : cut(text)) {
            append_piece(*model_, token, true, back);
        }
        if (back != text) {
            return false;
        }
    }
    return true;
}

Matcher::Matcher(std::shared_ptr<const GrammarTokenizer> tokenizer, const std::string & kind,
                 const std::string & text) :
    tokenizer_(std::move(tokenizer)),
    noun_(noun_of(kind)) {
    const Guidance & g    = guidance();
    LlgInit          init = {};
    g.constraint_init_set_defaults(&init, tokenizer_->handle());
    init.log_stderr_level        = 0;
    init.limits.max_lexer_states = MAX_LEXER_STATES;
    init.limits.max_grammar_size = MAX_GRAMMAR_SIZE;
    init.limits.verbose_errors   = false;
    handle_                      = g.new_matcher(&init, kind.c_str(), text.c_str());
    try {
        check();
    } catch (...) {
        g.free_matcher(handle_);
        throw;
    }
}

Matcher::Matcher(const Matcher & other) :
    tokenizer_(other.tokenizer_),
    noun_(other.noun_),
    handle_(guidance().clone_matcher(other.handle_)) {}

Matcher::~Matcher() {
    guidance().free_matcher(handle_);
}

void Matcher::check() const {
    const char * reason = guidance().matcher_get_error(handle_);
    if (reason != nullptr) {
        refuse(shorten(reason));
    }
}

void Matcher::refuse(const std::string & reason) const {
    throw Error(OLM_E_INVALID_ARGUMENT, std::string("the ") + noun_ + " cannot be used: " + reason);
}

void Matcher::consume(const std::vector<uint32_t> & tokens) {
    const Guidance & g = guidance();
    if (g.matcher_consume_tokens(handle_, tokens.data(), tokens.size()) != 0) {
        check();
        refuse("it does not take a token");
    }
}

void Matcher::consume(llama_token token) {
    consume(std::vector<uint32_t>{static_cast<uint32_t>(token)});
}

// Byte by byte, since the text need not begin and end where tokens do.
void Matcher::feed(std::string_view bytes) {
    std::vector<uint32_t> tokens;
    for (const char byte : bytes) {
        const int token = tokenizer_->byte_token(static_cast<uint8_t>(byte));
        require(token >= 0, OLM_E_VOCABULARY, "the vocabulary has no token for a byte of the text");
        tokens.push_back(static_cast<uint32_t>(token));
    }
    consume(tokens);
}

void Matcher::mask(TokenMask & out) {
    const Guidance & g = guidance();
    out.resize(g.matcher_get_mask_byte_size(handle_) / sizeof(uint32_t));
    if (g.matcher_compute_mask_into(handle_, out.data(), out.size() * sizeof(uint32_t)) != 0) {
        check();
        refuse("it allows no token");
    }
}

bool Matcher::is_stopped() const {
    return guidance().matcher_is_stopped(handle_);
}

}  // namespace olm
