// What the threads of a block do together, for a host's C++ compiler: shared memory, its copies, and tensor cores, read
// from the manual of PTX. A thread runs until it waits. What was not copied or written yet is NaN.
#include <deque>
#include <memory>
#include <ucontext.h>
#include <vector>

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    bool done;
    struct Copy { char *to; char bytes[16]; };
    std::vector<Copy> asked;               // copies of no group yet
    std::deque<std::vector<Copy>> groups;  // that are under way
};

struct Barrier {
    unsigned arrived, passed;
};

static std::vector<std::unique_ptr<Fiber>> fibers;
static std::vector<char> memory_of_block;
static std::vector<Barrier> warps;
static Barrier block;
static ucontext_t scheduler;
static std::function<void()> work;

static void begin() {
    work();
    fibers[threadIdx.x]->done = true;
    swapcontext(&fibers[threadIdx.x]->context, &scheduler);
}

static void run_together(const std::function<void()> &call, unsigned threads, unsigned shared) {
    memory_of_block.assign(shared + 16, (char)0xff);
    warps.assign((threads + 31) / 32, {0, 0});
    block = {0, 0};
    work = call;
    fibers.clear();
    for (unsigned i = 0; i < threads; i++) {
        fibers.push_back(std::make_unique<Fiber>());
        Fiber &fiber = *fibers.back();
        fiber.stack.resize(1 << 16);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, begin, 0);
    }
    for (bool busy = true; busy;) {
        busy = false;
        for (unsigned i = 0; i < threads; i++) {
            if (fibers[i]->done) continue;
            threadIdx.x = i;
            swapcontext(&scheduler, &fibers[i]->context);
            busy = true;
        }
    }
}

static void wait(Barrier &barrier, unsigned all) {
    unsigned before = barrier.passed, me = threadIdx.x;
    if (++barrier.arrived == all) {
        barrier.arrived = 0;
        barrier.passed++;
    }
    while (barrier.passed == before) {
        swapcontext(&fibers[me]->context, &scheduler);
        threadIdx.x = me;
    }
}

static void __syncthreads() { wait(block, blockDim.x); }

static char *shared_memory() {
    std::uintptr_t at = reinterpret_cast<std::uintptr_t>(memory_of_block.data());
    return memory_of_block.data() + (16 - at % 16) % 16;
}

// As late as it may be: a copy is made when it is waited for.
static void copy_chunk(char *to, const void *from, bool there) {
    Fiber::Copy copy = {to, {}};
    if (there) std::memcpy(copy.bytes, from, 16);
    fibers[threadIdx.x]->asked.push_back(copy);
}

static void copies_asked() {
    Fiber &fiber = *fibers[threadIdx.x];
    fiber.groups.push_back(std::move(fiber.asked));
    fiber.asked.clear();
}

template <int LATER> static void copies_done() {
    auto &groups = fibers[threadIdx.x]->groups;
    for (; groups.size() > LATER; groups.pop_front()) {
        for (auto &copy : groups.front()) std::memcpy(copy.to, copy.bytes, 16);
    }
}

// What the lanes of a warp know of each other: each tells, and all see it.
template <typename Told> static const Told *told(const Told &mine) {
    static std::vector<Told> all[2];  // one after the other, so that a lane that is ahead does no harm
    static std::vector<int> turn;
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    turn.resize(blockDim.x);
    int now = turn[threadIdx.x] ^= 1;
    all[now].resize(blockDim.x);
    all[now][threadIdx.x] = mine;
    wait(warps[warp], 32);
    return &all[now][warp * 32];
}

static void read_matrices(const char *line, unsigned (&words)[4]) {
    const char *const *lines = told(line);
    unsigned lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) std::memcpy(&words[i], lines[i * 8 + lane / 4] + lane % 4 * 4, 4);
}

static void read_transposed(const char *line, unsigned (&words)[4]) {
    const char *const *lines = told(line);
    unsigned lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) {
        unsigned short pair[2];
        for (int j = 0; j < 2; j++) std::memcpy(&pair[j], lines[i * 8 + lane % 4 * 2 + j] + lane / 4 * 2, 2);
        words[i] = pair[0] | (unsigned)pair[1] << 16;
    }
}

struct Operands {
    unsigned a[4], b[2];
};

// The sums of a lane: rows lane / 4 and 8 below, columns 2 (lane % 4) and the next. `number` reads a term of a register.
template <int TERMS, typename Number>
static void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Number number) {
    const Operands *warp = told(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const int words = TERMS / 8;  // terms of a register
    unsigned lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < TERMS; k++) {
            int holder = k % (TERMS / 2) / words, half = k / (TERMS / 2);
            float left = number(warp[row % 8 * 4 + holder].a[row / 8 + 2 * half], k % words);
            float right = number(warp[column * 4 + holder].b[half], k % words);
            sums[i] += left * right;
        }
    }
}

template <typename T>
static void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T) {
    multiply_add<16>(sums, a, b0, b1, [](unsigned word, int i) {
        T number;
        std::memcpy(&number, reinterpret_cast<const char *>(&word) + 2 * i, 2);
        return widen(number);
    });
}

static void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, float) {
    multiply_add<8>(sums, a, b0, b1, [](unsigned word, int) {
        word &= ~0x1fffu;  // it does not look at these
        float number;
        std::memcpy(&number, &word, 4);
        return number;
    });
}
