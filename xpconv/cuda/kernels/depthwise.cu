// Depthwise convolution: x (N, *size, C) and weight (*kernel, C) to y (N, *output, C), every channel by itself.

// A thread adds up one window, for a pack of channels.
template <typename T, int V>
__global__ void depthwise(const T *x, const T *weight, const T *bias, T *y, const Windows w) {
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest) * V;
    Place place = window_place(w, rest);
    typename Wide<T>::type sum[V] = {};
    start_from<T, V>(bias, channel, sum);
    each_tap(w, place, [&](int k, const int(&element)[3]) {
        Pack<T, V> pack = load<T, V>(x + address(w, place.n, element, channel));
        Pack<T, V> factor = load<T, V>(weight + (long long)k * w.channels + channel);
        for (int v = 0; v < V; v++) sum[v] += widen(pack.at[v]) * widen(factor.at[v]);
    });
    store_sum<T, V>(y + (long long)i * V, sum);
}

// A thread adds up, for a pack of channels of one element, what it gave to the windows that see it.
template <typename T, int V>
__global__ void depthwise_input_gradient(const T *dy, const T *weight, const T *bias, T *dx, const Windows w) {
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest) * V;
    typename Wide<T>::type sum[V] = {};
    start_from<T, V>(bias, channel, sum);
    each_window(w, element_place(w, rest), [&](int k, const Place &window) {
        Pack<T, V> pack = load<T, V>(dy + flat(w, window) * w.channels + channel);
        Pack<T, V> factor = load<T, V>(weight + (long long)k * w.channels + channel);
        for (int v = 0; v < V; v++) sum[v] += widen(pack.at[v]) * widen(factor.at[v]);
    });
    store_sum<T, V>(dx + (long long)i * V, sum);
}

// A thread adds up, for a pack of channels of one tap, one slice of the windows: dw (slices, *kernel, C) in the type
// that sums are in, whose slices are then to be added up.
template <typename T, int V>
__global__ void depthwise_weight_gradient(const T *x, const T *dy, typename Wide<T>::type *dw, const Windows w) {
    typedef typename Wide<T>::type A;
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest) * V, tap[3], element[3];
    for (int axis = 2; axis >= 0; axis--) tap[axis] = w.axes[axis].by_kernel.digit(rest);
    long long windows = w.batch * w.output(), first = (long long)rest * w.share;
    long long end = first + w.share < windows ? first + w.share : windows;
    A sum[V] = {};
    for (long long at = first; at < end; at++) {
        Place place = window_place(w, (unsigned)at);
        for (int axis = 0; axis < 3; axis++) element[axis] = w.axes[axis].element(place.at[axis], tap[axis]);
        if (!inside(w, element)) continue;
        Pack<T, V> pack = load<T, V>(x + address(w, place.n, element, channel));
        Pack<T, V> share = load<T, V>(dy + at * w.channels + channel);
        for (int v = 0; v < V; v++) sum[v] += widen(pack.at[v]) * widen(share.at[v]);
    }
    Pack<A, V> pack;
    for (int v = 0; v < V; v++) pack.at[v] = sum[v];
    store<A, V>(dw + (long long)i * V, pack);
}
