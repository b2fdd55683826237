/* check.h: a small harness for the C checks. Each check_<suite>.c defines
 * `int check_<suite>(const fnn_kernels *k)`, which main.c calls for every instruction set that this
 * CPU has and for both dtypes, and which returns the number of its failures. */
#ifndef FASTNN_CHECK_H
#define FASTNN_CHECK_H

#include "../fastnn.h"

/* Counts one check, prints its message where `ok` is 0 (the first few of a suite), returns ok. */
int check_that(int ok, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Failures counted since the suite began. */
int check_failures(void);

/* n elements of k's dtype, zero, 64-byte aligned; check_free_all frees all after a suite. */
void *check_alloc(const fnn_kernels *k, ptrdiff_t n);
void check_free_all(void);

/* Element i of an array of k's dtype, as float64. */
double check_get(const fnn_kernels *k, const void *array, ptrdiff_t i);
void check_set(const fnn_kernels *k, void *array, ptrdiff_t i, double value);

/* Reproducible numbers for test data: uniform in [-1, 1), and integers in [-limit, limit]. */
double check_uniform(void);
int check_integer(int limit);

/* The larger of two errors; a NaN, once seen, stays (fmax would drop it). */
static inline double check_worst(double a, double b) { return a != a || a >= b ? a : b; }

/* Machine epsilon of k's dtype. */
double check_eps(const fnn_kernels *k);

#endif
