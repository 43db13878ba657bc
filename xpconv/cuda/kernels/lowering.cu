// Lowering (im2col) and its adjoint (col2im): an array x (N, *size, C) and its windows as rows
// (G, N*windows, taps*C/G), each the elements that one window sees of one group's channels.

// A thread moves a pack of channels of one tap of one window of one group.
template <typename T, int V> __global__ void lower(const T *x, T *rows, const Windows w) {
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_group_packs.digit(rest) * V, tap[3], element[3];
    for (int axis = 2; axis >= 0; axis--) tap[axis] = w.axes[axis].by_kernel.digit(rest);
    for (int axis = 2; axis >= 0; axis--) {
        element[axis] = w.axes[axis].element(w.axes[axis].by_output.digit(rest), tap[axis]);
    }
    int n = w.by_batch.digit(rest), group = (int)rest;
    Pack<T, V> pack = {};
    if (inside(w, element)) pack = load<T, V>(x + address(w, n, element, group * w.width + channel));
    store<T, V>(rows + (long long)i * V, pack);
}

// A thread adds up, for a pack of channels of one element, what the windows that see it hold, and a bias; in the type
// that sums are in: nothing is rounded before the end.
template <typename T, int V>
__global__ void lower_adjoint(const typename Wide<T>::type *rows, const T *bias, T *x, const Windows w) {
    typedef typename Wide<T>::type A;
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i, within = w.by_packs.digit(rest) * V;
    int group = (int)w.by_width.quotient(within);
    A sum[V] = {};
    start_from<T, V>(bias, within, sum);
    within -= group * w.width;
    each_window(w, element_place(w, rest), [&](int tap, const Place &window) {
        long long row = group * w.batch * w.output() + flat(w, window);
        Pack<A, V> pack = load<A, V>(rows + (row * w.taps() + tap) * w.width + within);
        for (int v = 0; v < V; v++) sum[v] += pack.at[v];
    });
    store_sum<T, V>(x + (long long)i * V, sum);
}
