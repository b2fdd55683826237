/* names.h: gives the short names of vec.h to one dtype. bodies.h includes it with F32 set to 1, then
 * to 0. FN(name) is the name of a body's function in this pass. */
#undef REAL
#undef FN
#undef vec
#undef vint
#undef vuint
#undef vmask
#undef vtail
#undef VL
#undef UINT
#undef vset1
#undef vload
#undef vstore
#undef vabs
#undef vneg_if
#undef vreal
#undef vreal_u
#undef vswap_if
#undef vfma
#undef vfma_at
#undef vsqrt
#undef vdiv
#undef vgt
#undef vge
#undef vlt
#undef veq
#undef vand
#undef vany
#undef vsel
#undef vmax
#undef vscale
#undef vsum
#undef vtop
#undef viota
#undef vfirst
#undef vwiden
#undef vtail_make
#undef vload_t
#undef vstore_t
#undef vstream
#undef vzip_lo
#undef vzip_hi
#undef vpieces

#if F32
#define REAL float
#define UINT uint32_t
#define FN(name) name##_f32
#define vec vf32
#define vint vi32
#define vuint vu32
#else
#define REAL double
#define UINT uint64_t
#define FN(name) name##_f64
#define vec vf64
#define vint vi64
#define vuint vu64
#endif

#define VL ((ptrdiff_t)(VEC_BYTES / sizeof(REAL)))
#define vmask FN(vmask)
#define vtail FN(vtail)
#define vset1 FN(vset1)
#define vload FN(vload)
#define vstore FN(vstore)
#define vabs FN(vabs)
#define vneg_if FN(vneg_if)
#define vreal FN(vreal)
#define vreal_u FN(vreal_u)
#define vswap_if FN(vswap_if)
#define vfma FN(vfma)
#define vfma_at FN(vfma_at)
#define vsqrt FN(vsqrt)
#define vdiv FN(vdiv)
#define vgt FN(vgt)
#define vge FN(vge)
#define vlt FN(vlt)
#define veq FN(veq)
#define vand FN(vand)
#define vany FN(vany)
#define vsel FN(vsel)
#define vmax FN(vmax)
#define vscale FN(vscale)
#define vsum FN(vsum)
#define vtop FN(vtop)
#define viota FN(viota)
#define vfirst FN(vfirst)
#define vwiden FN(vwiden)
#define vtail_make FN(vtail_make)
#define vload_t FN(vload_t)
#define vstore_t FN(vstore_t)
#define vstream FN(vstream)
#define vzip_lo FN(vzip_lo)
#define vzip_hi FN(vzip_hi)
#define vpieces FN(vpieces)
