// Pooling: x (N, *size, C) to y (N, *output, C), and dy back to dx.

// A thread finds the largest element of one window, for a pack of channels, and the tap that it stands at: the first
// of equals, and NaN above all numbers.
template <typename T, int V, typename Tap> __global__ void max_pool(const T *x, T *y, Tap *taps, const Windows w) {
    typedef typename Wide<T>::type A;
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest) * V;
    Place place = window_place(w, rest);
    A largest[V];
    Pack<T, V> found;
    Pack<Tap, V> tap;
    bool first = true;
    each_tap(w, place, [&](int k, const int(&element)[3]) {
        Pack<T, V> pack = load<T, V>(x + address(w, place.n, element, channel));
        for (int v = 0; v < V; v++) {
            A value = widen(pack.at[v]);
            if (first || value > largest[v] || (value != value && largest[v] == largest[v])) {
                largest[v] = value;
                found.at[v] = pack.at[v];
                tap.at[v] = (Tap)k;
            }
        }
        first = false;
    });
    store<T, V>(y + (long long)i * V, found);
    store<Tap, V>(taps + (long long)i * V, tap);
}

// A thread adds up, for a pack of channels of one element, dy of the windows whose largest it is.
template <typename T, int V, typename Tap>
__global__ void max_pool_gradient(const T *dy, const Tap *taps, T *dx, const Windows w) {
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest) * V;
    typename Wide<T>::type sum[V] = {};
    each_window(w, element_place(w, rest), [&](int k, const Place &window) {
        long long at = flat(w, window) * w.channels + channel;
        Pack<Tap, V> largest = load<Tap, V>(taps + at);
        Pack<T, V> pack = load<T, V>(dy + at);
        for (int v = 0; v < V; v++) {
            if (largest.at[v] == k) sum[v] += widen(pack.at[v]);
        }
    });
    store_sum<T, V>(dx + (long long)i * V, sum);
}

// How a mean is taken: by a number that is given, or (0) by the elements of a window, its padding among them or not.
struct Mean {
    int divisor, with_padding;

    __device__ __forceinline__ int count(const Windows &w, const Place &window) const {
        if (divisor) return divisor;
        int count = 1;
        for (int axis = 0; axis < 3; axis++) count *= w.axes[axis].members(window.at[axis], with_padding);
        return count;
    }
};

// A thread takes the mean of one window, for a pack of channels.
template <typename T, int V> __global__ void avg_pool(const T *x, T *y, const Windows w, const Mean mean) {
    typedef typename Wide<T>::type A;
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest) * V;
    Place place = window_place(w, rest);
    A sum[V] = {};
    each_tap(w, place, [&](int, const int(&element)[3]) {
        Pack<T, V> pack = load<T, V>(x + address(w, place.n, element, channel));
        for (int v = 0; v < V; v++) sum[v] += widen(pack.at[v]);
    });
    A count = (A)mean.count(w, place);
    for (int v = 0; v < V; v++) sum[v] /= count;
    store_sum<T, V>(y + (long long)i * V, sum);
}

// A thread adds up, for a pack of channels of one element, its shares of dy.
template <typename T, int V> __global__ void avg_pool_gradient(const T *dy, T *dx, const Windows w, const Mean mean) {
    typedef typename Wide<T>::type A;
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest) * V;
    A sum[V] = {};
    each_window(w, element_place(w, rest), [&](int, const Place &window) {
        Pack<T, V> pack = load<T, V>(dy + flat(w, window) * w.channels + channel);
        A count = (A)mean.count(w, window);
        for (int v = 0; v < V; v++) sum[v] += widen(pack.at[v]) / count;
    });
    store_sum<T, V>(dx + (long long)i * V, sum);
}
