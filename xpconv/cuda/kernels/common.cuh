// What all kernels share: how numbers are stored and added up, and windows in whole numbers.
//
// Every kernel but those of the tensor cores is one thread for one result. Threads share nothing and wait for nobody, so
// a kernel is exact when a plain loop runs its threads one after the other, and gives the same bits in any order.
// Arrays are channels-last. The structures are filled in by geometry.py, field for field.

// --- Numbers

struct Float16 { unsigned short bits; };
struct BFloat16 { unsigned short bits; };

template <typename T> struct Wide { typedef T type; };  // in what T is added up
template <> struct Wide<Float16> { typedef float type; };
template <> struct Wide<BFloat16> { typedef float type; };

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(BFloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ __forceinline__ void narrow(float x, float &y) { y = x; }
__device__ __forceinline__ void narrow(double x, double &y) { y = x; }
__device__ __forceinline__ void narrow(float x, BFloat16 &y) {
    unsigned bits = __float_as_uint(x);
    y.bits = x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff;  // to the nearest, ties to even
}

#ifdef __CUDACC_RTC__  // whoever compiles this for another processor brings these two along
__device__ __forceinline__ float from_float16_bits(unsigned short bits) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
    return y;
}
__device__ __forceinline__ unsigned short to_float16_bits(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
#endif

__device__ __forceinline__ float widen(Float16 x) { return from_float16_bits(x.bits); }
__device__ __forceinline__ void narrow(float x, Float16 &y) { y.bits = to_float16_bits(x); }

// V neighbours, read and written at once.
template <typename T, int V> struct alignas(sizeof(T) * V) Pack { T at[V]; };

template <typename T, int V> __device__ __forceinline__ Pack<T, V> load(const T *from) {
    return *reinterpret_cast<const Pack<T, V> *>(from);
}

template <typename T, int V> __device__ __forceinline__ void store(T *to, const Pack<T, V> &pack) {
    *reinterpret_cast<Pack<T, V> *>(to) = pack;
}

template <typename T, int V> __device__ __forceinline__ void store_sum(T *to, const typename Wide<T>::type (&sum)[V]) {
    Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; v++) narrow(sum[v], pack.at[v]);
    store<T, V>(to, pack);
}

// Starts a sum from a bias, where there is one.
template <typename T, int V>
__device__ __forceinline__ void start_from(const T *bias, int channel, typename Wide<T>::type (&sum)[V]) {
    if (!bias) return;
    Pack<T, V> pack = load<T, V>(bias + channel);
#pragma unroll
    for (int v = 0; v < V; v++) sum[v] = widen(pack.at[v]);
}

// --- Whole numbers

// Divides numbers below 2^31 by multiplying: Granlund and Montgomery, "Division by invariant integers using
// multiplication" (1994), figure 4.1.
struct Divider {
    unsigned divisor, multiplier, shift;

    __device__ __forceinline__ unsigned quotient(unsigned n) const { return (__umulhi(n, multiplier) + n) >> shift; }

    // Takes the last digit off a number whose digits count to the divisor.
    __device__ __forceinline__ int digit(unsigned &n) const {
        unsigned rest = quotient(n), last = n - rest * divisor;
        n = rest;
        return (int)last;
    }
};

struct Axis {
    int size, kernel, stride, before, after, dilation, output;
    Divider by_size, by_kernel, by_stride, by_output;

    // The element that tap k of window o sees; outside 0..size it is padding.
    __device__ __forceinline__ int element(int o, int k) const { return o * stride + k * dilation - before; }

    // The window that sees element i by its tap k; negative when there is none.
    __device__ __forceinline__ int window(int i, int k) const {
        int far = i + before - k * dilation;
        if (far < 0) return -1;
        int o = (int)by_stride.quotient((unsigned)far);
        return o * stride == far && o < output ? o : -1;
    }

    // Taps of window o that lie below `bound`.
    __device__ __forceinline__ int taps_below(int bound, int o) const {
        int far = bound - (o * stride - before);
        int taps = far <= 0 ? 0 : (far + dilation - 1) / dilation;
        return taps < kernel ? taps : kernel;
    }

    // Taps of window o that lie on the axis, or on the axis and its padding.
    __device__ __forceinline__ int members(int o, bool with_padding) const {
        return with_padding ? taps_below(size + after, o) - taps_below(-before, o)
                            : taps_below(size, o) - taps_below(0, o);
    }
};

// Windows over three axes (those that there are not have one element), and the array that they lie on.
struct Windows {
    long long strides[5];  // of that array, in elements: batch, three axes, channels
    int threads;           // that have a result to make
    int batch, channels;
    int width;  // channels of a group
    int share;  // windows of a slice, where a long sum is cut into slices
    Divider by_packs, by_group_packs, by_width, by_batch;  // packs of channels: of all, of a group
    Axis axes[3];

    __device__ __forceinline__ long long output() const {
        return (long long)axes[0].output * axes[1].output * axes[2].output;
    }
    __device__ __forceinline__ int taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
};

// A place among batch and three axes.
struct Place {
    int n, at[3];

    __device__ __forceinline__ long long flat(int a, int b, int c) const {
        return (((long long)n * a + at[0]) * b + at[1]) * c + at[2];
    }
};

// Takes the place of a window, and what is left of n is the batch.
__device__ __forceinline__ Place window_place(const Windows &w, unsigned n) {
    Place place;
#pragma unroll
    for (int axis = 2; axis >= 0; axis--) place.at[axis] = w.axes[axis].by_output.digit(n);
    place.n = (int)n;
    return place;
}

// Takes the place of an element of the array.
__device__ __forceinline__ Place element_place(const Windows &w, unsigned n) {
    Place place;
#pragma unroll
    for (int axis = 2; axis >= 0; axis--) place.at[axis] = w.axes[axis].by_size.digit(n);
    place.n = (int)n;
    return place;
}

// Whether an element lies on the array, and not on padding.
__device__ __forceinline__ bool inside(const Windows &w, const int (&element)[3]) {
    return (unsigned)element[0] < (unsigned)w.axes[0].size && (unsigned)element[1] < (unsigned)w.axes[1].size &&
           (unsigned)element[2] < (unsigned)w.axes[2].size;
}

// Where an element lies in the array's memory.
__device__ __forceinline__ long long address(const Windows &w, int n, const int (&element)[3], int channel) {
    return n * w.strides[0] + element[0] * w.strides[1] + element[1] * w.strides[2] + element[2] * w.strides[3] +
           channel * w.strides[4];
}

// Calls visit(k, element) for the taps of a window that lie on the array, k counting all taps in their order.
template <typename Visit> __device__ __forceinline__ void each_tap(const Windows &w, const Place &window, Visit visit) {
    int k = 0, element[3];
    for (int a = 0; a < w.axes[0].kernel; a++) {
        element[0] = w.axes[0].element(window.at[0], a);
        for (int b = 0; b < w.axes[1].kernel; b++) {
            element[1] = w.axes[1].element(window.at[1], b);
            for (int c = 0; c < w.axes[2].kernel; c++, k++) {
                element[2] = w.axes[2].element(window.at[2], c);
                if (inside(w, element)) visit(k, element);
            }
        }
    }
}

// Calls visit(k, window) for the windows that see an element of the array, k being the tap they see it by.
template <typename Visit> __device__ __forceinline__ void each_window(const Windows &w, const Place &x, Visit visit) {
    Place window;
    window.n = x.n;
    for (int a = 0; a < w.axes[0].kernel; a++) {
        if ((window.at[0] = w.axes[0].window(x.at[0], a)) < 0) continue;
        for (int b = 0; b < w.axes[1].kernel; b++) {
            if ((window.at[1] = w.axes[1].window(x.at[1], b)) < 0) continue;
            for (int c = 0; c < w.axes[2].kernel; c++) {
                if ((window.at[2] = w.axes[2].window(x.at[2], c)) < 0) continue;
                visit((a * w.axes[1].kernel + b) * w.axes[2].kernel + c, window);
            }
        }
    }
}

__device__ __forceinline__ long long flat(const Windows &w, const Place &window) {
    return window.flat(w.axes[0].output, w.axes[1].output, w.axes[2].output);
}

__device__ __forceinline__ unsigned thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }
