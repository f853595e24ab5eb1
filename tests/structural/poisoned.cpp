// Proves: no header uses a name that widespread headers define as a macro.
// Against: the macros themselves, defined after the third-party headers and before ours.
#include <Eigen/Core>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>
#if __has_include(<xtensor/xarray.hpp>)
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#endif

#define POISON static_assert(false, "a name that other people's headers define as a macro");
#define I POISON          // complex.h
#define B0 POISON         // termios.h
#define small POISON      // Windows rpcndr.h
#define near POISON       // Windows windef.h
#define far POISON        // the same
#define interface POISON  // Windows objbase.h
#define ERROR POISON      // Windows wingdi.h
#define DOMAIN POISON     // math.h of SVID systems
#define OVERFLOW POISON   // the same
#define major POISON      // sys/sysmacros.h
#define minor POISON      // the same

#include <everything.hpp>

int main() {
  return 0;
}
