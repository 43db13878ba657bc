// Convolutions by the tensor cores, without lowering: implicit GEMM, the products of windows and filters in tiles that are
// gathered from where x and the filters lie (Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014,
// section 3.2). Terms of the sums count taps and channels; all of a tile are of one tap.

// Filters (*kernel, C/G, O) as they lie in memory.
struct Filters {
    long long strides[5];  // in elements: three taps, channels, filters
    int count;             // of a group
};

// A term of the sums: a channel of a tap. What it is of every window and filter lies so many elements behind the first.
struct Term {
    int channel, tap[3], shift[3];
    int seen;       // from the window's first element, in memory
    long long met;  // from the filter's first weight

    __device__ __forceinline__ Term(const Windows &w, int term) : tap{0, 0, 0}, met(0) {
        unsigned rest = term;
        channel = w.by_width.digit(rest);
#pragma unroll
        for (int axis = 2; axis >= 0; axis--) tap[axis] = w.axes[axis].by_kernel.digit(rest);
        look(w);
    }

    __device__ __forceinline__ void look(const Windows &w) {
        seen = channel;
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            shift[axis] = tap[axis] * w.axes[axis].dilation;
            seen += shift[axis] * (int)w.strides[axis + 1];
        }
    }

    // Goes to these channels of the next tap, so that what neighbouring windows share is still in the cache; after the
    // last to more channels. It does so without a branch, between the products.
    __device__ __forceinline__ void advance(const Windows &w, const Filters &f, int channels) {
        bool over = true;
#pragma unroll
        for (int axis = 2; axis >= 0; axis--) {
            tap[axis] += over;
            over = tap[axis] == w.axes[axis].kernel;
            tap[axis] = over ? 0 : tap[axis];
        }
        channel += over ? channels : 0;
        look(w);
        met = channel * f.strides[3] + tap[0] * f.strides[0] + tap[1] * f.strides[1] + tap[2] * f.strides[2];
    }
};

// A window's first element, which may be padding.
template <typename T> struct First {
    const T *at;
    int element[3];

    __device__ __forceinline__ First() {}
    __device__ __forceinline__ First(const Windows &w, const T *x, int window, bool there) {
        Place place = window_place(w, there ? window : 0);
        int offset = 0;  // an image has less than 2^31 elements
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            element[axis] = w.axes[axis].element(place.at[axis], 0);
            offset += element[axis] * (int)w.strides[axis + 1];
        }
        at = x + place.n * w.strides[0] + offset;
        if (!there) element[0] = -(1 << 30);  // farther off than any array goes
    }

    // Copies what the window has there, or zeros for padding.
    __device__ __forceinline__ void copy(char *to, const Windows &w, const Term &term, bool there) const {
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            there = there && (unsigned)(element[axis] + term.shift[axis]) < (unsigned)w.axes[axis].size;
        }
        copy_chunk(to, at + term.seen, there);
    }
};

// Where results go: batch and three axes, in elements; their channels are neighbours.
struct Places {
    long long strides[4];

    __device__ __forceinline__ long long address(const Place &p) const {
        return p.n * strides[0] + p.at[0] * strides[1] + p.at[1] * strides[2] + p.at[2] * strides[3];
    }
};

// x (N, *size, C) and filters to y (N, *output, O), with a bias. A block makes 64 ROWS windows of 64
// COLUMNS filters.
template <typename T, bool ALONG, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(32 * ROWS *COLUMNS)
    implicit(const T *x, const T *weight, const T *bias, T *y, const Windows w, const Filters f, const Places to) {
    typedef Tile<T, true, WARP * ROWS, 32 * ROWS * COLUMNS> A;
    typedef Tile<T, ALONG, WARP * COLUMNS, 32 * ROWS * COLUMNS> B;
    int tiles = (f.count + WARP * COLUMNS - 1) / (WARP * COLUMNS), group = blockIdx.y;
    int first_window = blockIdx.x / tiles * WARP * ROWS, first_filter = blockIdx.x % tiles * WARP * COLUMNS;
    int windows = (int)(w.batch * w.output());
    x += group * w.width;
    weight += group * f.count * f.strides[4];

    First<T> first[A::rows];
#pragma unroll
    for (int i = 0; i < A::rows; i++) {
        int window = first_window + A::row(i);
        first[i] = First<T>(w, x + A::column(), window, window < windows);
    }
    int filter = first_filter + (ALONG ? B::row(0) : B::column()), term = ALONG ? B::column() : B::row(0);
    const T *met = weight + term * f.strides[3] + filter * f.strides[4];
    long long apart = B::apart * f.strides[ALONG ? 4 : 3];
    Term next(w, 0);
    auto fetch = [&](char *left, char *right, bool more) {
#pragma unroll
        for (int i = 0; i < A::rows; i++) first[i].copy(A::place(left, i), w, next, more);
#pragma unroll
        for (int i = 0; i < B::rows; i++) {
            bool there = more && filter + (ALONG ? i * B::apart : 0) < f.count;
            copy_chunk(B::place(right, i), met + next.met + i * apart, there);
        }
        next.advance(w, f, A::terms);
    };
    int warp = threadIdx.x / 32, row = warp / COLUMNS * WARP, column = warp % COLUMNS * WARP;
    Sums sums;
    accumulate<T, A, B>(sums, w.taps() * w.width / A::terms, row, column, fetch);
    sums.each_pair(first_window + row, first_filter + column, [&](int window, int filter, float one, float two) {
        if (window >= windows || filter >= f.count) return;
        filter += group * f.count;
        if (bias) {
            one += widen(bias[filter]);
            two += widen(bias[filter + 1]);
        }
        store_pair(y + to.address(window_place(w, window)) + filter, one, two);
    });
}

// x (N, *size, C) and dy (N, *output, O) to slices of dw (S, *kernel, C/G, O), each the sum of some of the windows. A
// block makes 64 ROWS channels of taps of 64 COLUMNS filters.
template <typename T, typename Out, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(32 * ROWS *COLUMNS)
    implicit_weight_gradient(const T *x, const T *dy, Out *dw, const Windows w, const Filters f) {
    typedef Tile<T, false, WARP * ROWS, 32 * ROWS * COLUMNS> A;
    typedef Tile<T, false, WARP * COLUMNS, 32 * ROWS * COLUMNS> B;
    int tiles = (f.count + WARP * COLUMNS - 1) / (WARP * COLUMNS), group = blockIdx.y;
    int first_term = blockIdx.x / tiles * WARP * ROWS, first_filter = blockIdx.x % tiles * WARP * COLUMNS;
    int terms = w.taps() * w.width, out = gridDim.y * f.count, from = blockIdx.z * w.share;
    int windows = (int)(w.batch * w.output()), until = from + w.share < windows ? from + w.share : windows;
    x += group * w.width;
    dy += group * f.count + first_filter + B::column();
    dw += (long long)blockIdx.z * terms * out;

    Term seen(w, first_term + A::column());  // one for all windows
    bool some_terms = first_term + A::column() < terms;
    bool some_filters = first_filter + B::column() < f.count;
    int window = from;
    dy += (long long)(from + B::row(0)) * out;
    auto fetch = [&](char *left, char *right, bool more) {
#pragma unroll
        for (int i = 0; i < A::rows; i++) {
            int row = window + A::row(i);
            First<T>(w, x, row, some_terms && row < until).copy(A::place(left, i), w, seen, more);
        }
#pragma unroll
        for (int i = 0; i < B::rows; i++) {
            copy_chunk(B::place(right, i), dy + i * B::apart * out, more && some_filters && window + B::row(i) < until);
        }
        window += A::terms;
        dy += A::terms * out;
    };
    int warp = threadIdx.x / 32, row = warp / COLUMNS * WARP, column = warp % COLUMNS * WARP;
    Sums sums;
    accumulate<T, A, B>(sums, (until - from + A::terms - 1) / A::terms, row, column, fetch);
    sums.each_pair(first_term + row, first_filter + column, [&](int term, int filter, float one, float two) {
        if (term < terms && filter < f.count) store_pair(dw + (long long)term * out + group * f.count + filter, one, two);
    });
}
