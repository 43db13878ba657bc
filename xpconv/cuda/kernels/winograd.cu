// The transforms of Winograd's F(m, 3) along two axes; between them are products over the channels, place by place.
// What the matrices do to one line (inputs, filters, outputs, and two of them transposed) is written in front of this
// file from their exact derivation: Inputs<m>, Filters<m>, Outputs<m>, OutputsBack<m>, FiltersBack<m>.
//
// Tiles are windows that lie m apart on x or y. P counts them all, T their places: (m + 2)^2.

// Carries out a transform of lines along both axes.
template <typename Line, typename A>
__device__ __forceinline__ void along_both(const A (&x)[Line::from][Line::from], A (&y)[Line::to][Line::to]) {
    A half[Line::to][Line::from];
#pragma unroll
    for (int j = 0; j < Line::from; j++) {
        A line[Line::from], made[Line::to];
#pragma unroll
        for (int i = 0; i < Line::from; i++) line[i] = x[i][j];
        Line::apply(line, made);
#pragma unroll
        for (int i = 0; i < Line::to; i++) half[i][j] = made[i];
    }
#pragma unroll
    for (int i = 0; i < Line::to; i++) Line::apply(half[i], y[i]);
}

// A thread transforms one tile of one channel: x (N, H, W, C) to (T, P, C).
template <typename Line, typename T>
__device__ __forceinline__ void transform_tile(const T *x, T *places, const Windows &w) {
    typedef typename Wide<T>::type A;
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest);
    long long tiles = w.batch * w.output(), at = rest;
    Place place = window_place(w, rest);
    A tile[Line::from][Line::from], made[Line::to][Line::to];
#pragma unroll
    for (int a = 0; a < Line::from; a++) {
#pragma unroll
        for (int b = 0; b < Line::from; b++) {
            int element[3] = {0, w.axes[1].element(place.at[1], a), w.axes[2].element(place.at[2], b)};
            tile[a][b] = inside(w, element) ? widen(x[address(w, place.n, element, channel)]) : A(0);
        }
    }
    along_both<Line>(tile, made);
#pragma unroll
    for (int a = 0; a < Line::to; a++) {
#pragma unroll
        for (int b = 0; b < Line::to; b++) {
            narrow(made[a][b], places[((a * Line::to + b) * tiles + at) * w.channels + channel]);
        }
    }
}

template <typename T, int M> __global__ void winograd_inputs(const T *x, T *places, const Windows w) {
    transform_tile<Inputs<M>>(x, places, w);
}

// The windows lie on dy here.
template <typename T, int M> __global__ void winograd_output_gradients(const T *dy, T *places, const Windows w) {
    transform_tile<OutputsBack<M>>(dy, places, w);
}

// A thread makes one tile of one channel: (T, P, O) and a bias (O,) to y (N, OH, OW, O), on which the windows lie.
template <typename T, int M>
__global__ void winograd_outputs(const T *places, const T *bias, T *y, const Windows w) {
    typedef typename Wide<T>::type A;
    typedef Outputs<M> Line;
    unsigned i = thread_number();
    if (i >= w.threads) return;
    unsigned rest = i;
    int channel = w.by_packs.digit(rest);
    long long tiles = w.batch * w.output(), at = rest;
    Place place = window_place(w, rest);
    A tile[Line::from][Line::from], made[Line::to][Line::to], start = bias ? widen(bias[channel]) : A(0);
#pragma unroll
    for (int a = 0; a < Line::from; a++) {
#pragma unroll
        for (int b = 0; b < Line::from; b++) {
            tile[a][b] = widen(places[((a * Line::from + b) * tiles + at) * w.channels + channel]);
        }
    }
    along_both<Line>(tile, made);
#pragma unroll
    for (int a = 0; a < Line::to; a++) {
#pragma unroll
        for (int b = 0; b < Line::to; b++) {
            int element[3] = {0, w.axes[1].element(place.at[1], a), w.axes[2].element(place.at[2], b)};
            if (inside(w, element)) narrow(made[a][b] + start, y[address(w, place.n, element, channel)]);
        }
    }
}

// A thread transforms one filter of one channel: (from*from, C*O) to (to*to, C*O), the threads counting C*O.
template <typename Line, typename T>
__device__ __forceinline__ void transform_filter(const T *taps, T *places, const Windows &w) {
    typedef typename Wide<T>::type A;
    unsigned i = thread_number();
    if (i >= w.threads) return;
    A filter[Line::from][Line::from], made[Line::to][Line::to];
#pragma unroll
    for (int a = 0; a < Line::from; a++) {
#pragma unroll
        for (int b = 0; b < Line::from; b++) {
            filter[a][b] = widen(taps[(long long)(a * Line::from + b) * w.threads + i]);
        }
    }
    along_both<Line>(filter, made);
#pragma unroll
    for (int a = 0; a < Line::to; a++) {
#pragma unroll
        for (int b = 0; b < Line::to; b++) {
            narrow(made[a][b], places[(long long)(a * Line::to + b) * w.threads + i]);
        }
    }
}

// (3, 3, C, O) to (T, C, O).
template <typename T, int M> __global__ void winograd_filters(const T *weight, T *places, const Windows w) {
    transform_filter<Filters<M>>(weight, places, w);
}

// (T, C, O) to (3, 3, C, O).
template <typename T, int M> __global__ void winograd_filter_gradients(const T *places, T *dw, const Windows w) {
    transform_filter<FiltersBack<M>>(places, dw, w);
}
