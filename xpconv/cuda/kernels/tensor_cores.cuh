// Products by the tensor cores. Unlike anywhere else the threads of a block work together: they copy some terms of the
// sums for a tile of results to shared memory, STAGES - 1 tiles ahead of the products, and each warp makes 64 x 64 of the
// results. A tile has lines, as many as it has results that way, and lies either along them (the terms of a line are
// neighbours) or across (the lines' terms of the same number are).

const int STAGES = 3, CHUNK = 16, SPAN = 64;  // of bytes: copied at once, and of a line's terms in a tile
const int STEP = 32;                          // bytes of a line that one product of the tensor cores takes
const int WARP = 64;                          // rows and columns of the results of a warp

#ifdef __CUDACC_RTC__  // whoever compiles this for another processor brings these along
__device__ __forceinline__ char *shared_memory() {
    extern __shared__ uint4 memory[];
    return reinterpret_cast<char *>(memory);
}

__device__ __forceinline__ unsigned shared_address(const char *at) { return (unsigned)__cvta_generic_to_shared(at); }

#if __CUDA_ARCH__ >= 800
#define TENSOR_CORES(...) asm volatile(__VA_ARGS__)
#else
#define TENSOR_CORES(...)  // never launched there
#endif

// Copies a chunk to shared memory, or where there is none zeros, some time before copies_done.
__device__ __forceinline__ void copy_chunk(char *to, const void *from, bool there) {
    TENSOR_CORES("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copies_asked() { TENSOR_CORES("cp.async.commit_group;" ::: "memory"); }

// Waits for all copies but those that were asked for last, so many times.
template <int LATER> __device__ __forceinline__ void copies_done() {
    TENSOR_CORES("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}

// Reads four matrices of 8 lines of 16 bytes, the lanes saying where the lines are; lane i gets word i % 4 of line i / 4.
__device__ __forceinline__ void read_matrices(const char *line, unsigned (&words)[4]) {
    TENSOR_CORES("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(line))
                 : "memory");
}

// The same of matrices of 16-bit numbers, transposed.
__device__ __forceinline__ void read_transposed(const char *line, unsigned (&words)[4]) {
    TENSOR_CORES("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(line))
                 : "memory");
}

#define MULTIPLY_ADD(instruction)                                                                                  \
    TENSOR_CORES(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                        \
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                          \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

// Adds the products of 16 lines and 8 lines, in the order of PTX's mma.m16n8k16 and mma.m16n8k8.
__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Float16) {
    MULTIPLY_ADD("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32");
}
__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, BFloat16) {
    MULTIPLY_ADD("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32");
}
__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, float) {
    MULTIPLY_ADD("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32");
}

// Rounds float32 to TF32, to the nearest.
__device__ __forceinline__ unsigned rounded_to_tf32(unsigned bits) {
    unsigned found = bits;
    TENSOR_CORES("cvt.rna.tf32.f32 %0, %1;" : "=r"(found) : "f"(__uint_as_float(bits)));
    return found;
}
#endif

__device__ __forceinline__ unsigned rounded(unsigned bits, float) { return rounded_to_tf32(bits); }
template <typename T> __device__ __forceinline__ unsigned rounded(unsigned bits, T) { return bits; }

// A tile in shared memory of so many lines, and the part of copying it that a thread has: chunks of some of its rows.
template <typename T, bool ALONG, int LINES, int THREADS> struct Tile {
    static const int terms = SPAN / sizeof(T), chunk = CHUNK / sizeof(T);
    static const int pitch = ALONG ? SPAN + CHUNK : (LINES + 8) * sizeof(T);  // so that no bank is asked twice at once
    static const int bytes = pitch * (ALONG ? LINES : terms);
    static const int across = (ALONG ? SPAN : LINES * (int)sizeof(T)) / CHUNK;  // chunks of a row
    static const int apart = THREADS / across, rows = (ALONG ? LINES : terms) / apart;

    static __device__ __forceinline__ int row(int i) { return threadIdx.x / across + i * apart; }
    static __device__ __forceinline__ int column() { return threadIdx.x % across * chunk; }
    static __device__ __forceinline__ char *place(char *tile, int i) {
        return tile + row(i) * pitch + threadIdx.x % across * CHUNK;
    }

    // Reads 16 lines of one step in four parts, as the left operand is wanted: lines 0-7 and 8-15 of the step's first
    // half, then of its second; or as two right ones are: both halves of lines 0-7, then of lines 8-15.
    template <bool RIGHT>
    static __device__ __forceinline__ void read(const char *tile, int line, int step, unsigned (&words)[4]) {
        int lane = threadIdx.x % 32, part = lane / 8;
        if (ALONG) {
            int row = line + lane % 8 + (RIGHT ? part / 2 : part % 2) * 8;
            read_matrices(tile + row * pitch + step * STEP + (RIGHT ? part % 2 : part / 2) * CHUNK, words);
        } else if (sizeof(T) == 2) {
            int term = step * 16 + lane % 8 + (RIGHT ? part % 2 : part / 2) * 8;
            read_transposed(tile + term * pitch + (line + (RIGHT ? part / 2 : part % 2) * 8) * 2, words);
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int term = step * 8 + lane % 4 + (RIGHT ? i % 2 : i / 2) * 4;
                const char *at = tile + term * pitch + (line + lane / 4 + (RIGHT ? i / 2 : i % 2) * 8) * 4;
                words[i] = *reinterpret_cast<const unsigned *>(at);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) words[i] = rounded(words[i], T());
    }
};

// The sums of a warp: 64 rows by 64 columns, two neighbours and another two 8 rows below in each.
struct Sums {
    static const int down = WARP / 16, across = WARP / 8;
    float at[down][across][4];

    __device__ __forceinline__ Sums() {
#pragma unroll
        for (int i = 0; i < down * across * 4; i++) at[i / 4 / across][i / 4 % across][i % 4] = 0;
    }

    // Adds the products of two tiles; meanwhile() is done once the first are under way.
    template <typename T, typename A, typename B, typename Meanwhile>
    __device__ __forceinline__ void add(const char *left, const char *right, int row, int column, Meanwhile meanwhile) {
#pragma unroll
        for (int step = 0; step < SPAN / STEP; step++) {
            unsigned a[down][4], b[across / 2][4];
#pragma unroll
            for (int i = 0; i < down; i++) A::template read<false>(left, row + 16 * i, step, a[i]);
#pragma unroll
            for (int j = 0; j < across / 2; j++) B::template read<true>(right, column + 16 * j, step, b[j]);
#pragma unroll
            for (int i = 0; i < down; i++) {
                if (i == 1 && !step) meanwhile();
#pragma unroll
                for (int j = 0; j < across; j++) {
                    multiply_add(at[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], T());
                }
            }
        }
    }

    // Calls visit(row, column, two neighbours) for all that this thread has.
    template <typename Visit> __device__ __forceinline__ void each_pair(int row, int column, Visit visit) const {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 2 * down; i++) {
#pragma unroll
            for (int j = 0; j < across; j++) {
                const float *pair = at[i / 2][j] + i % 2 * 2;
                visit(row + 8 * i + lane / 4, column + 8 * j + lane % 4 * 2, pair[0], pair[1]);
            }
        }
    }
};

// Adds up all terms, `steps` tiles of them; fetch(left, right, there) asks for the copies of the next two tiles, each
// time, which after the last are zeros.
template <typename T, typename A, typename B, typename Fetch>
__device__ __forceinline__ void accumulate(Sums &sums, int steps, int row, int column, Fetch fetch) {
    const int both = A::bytes + B::bytes;
    char *memory = shared_memory();
    int filled = 0, used = 0;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        fetch(memory + filled, memory + filled + A::bytes, i < steps);
        copies_asked();
        filled += both;
    }
#pragma unroll 1
    for (int i = 0; i < steps; i++) {
        copies_done<STAGES - 2>();
        __syncthreads();
        sums.add<T, A, B>(memory + used, memory + used + A::bytes, row, column, [&] {
            fetch(memory + filled, memory + filled + A::bytes, i + STAGES - 1 < steps);
            copies_asked();
        });
        filled = filled == (STAGES - 1) * both ? 0 : filled + both;
        used = used == (STAGES - 1) * both ? 0 : used + both;
    }
    copies_done<0>();
}

template <typename Out> __device__ __forceinline__ void store_pair(Out *to, float first, float second) {
    Pack<Out, 2> pack;
    narrow(first, pack.at[0]);
    narrow(second, pack.at[1]);
    store<Out, 2>(to, pack);
}
