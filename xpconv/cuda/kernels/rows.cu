// Matrices (R, C) that lie in memory row by row: one row written to all of them, and their sum.
//
// There are as many threads as some of the rows have packs. So a thread that walks on by their number stays in its
// columns, and neighbours read and write what is next to each other, however short a row is.

struct Rows {
    long long packs;  // of the matrix
    int threads;
    int row;  // packs of a row
};

// A thread writes a pack of the row to every so many rows.
template <typename T, int V> __global__ void repeat_row(const T *row, T *y, const Rows r) {
    unsigned i = thread_number();
    if (i >= r.threads) return;
    Pack<T, V> pack = load<T, V>(row + i % r.row * V);
    for (long long j = i; j < r.packs; j += r.threads) store<T, V>(y + j * V, pack);
}

// A thread adds up a pack of every so many rows.
template <typename T, int V> __global__ void sum_rows(const T *x, typename Wide<T>::type *sums, const Rows r) {
    typedef typename Wide<T>::type A;
    unsigned i = thread_number();
    if (i >= r.threads) return;
    A sum[V] = {};
#pragma unroll 4
    for (long long j = i; j < r.packs; j += r.threads) {
        Pack<T, V> pack = load<T, V>(x + j * V);
#pragma unroll
        for (int v = 0; v < V; v++) sum[v] += widen(pack.at[v]);
    }
    store_sum<A, V>(sums + (long long)i * V, sum);
}
