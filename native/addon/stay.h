#pragma once

namespace hqq::addon {

// Keeps the addon in memory for as long as the process lives. A worker thread that ends closes it, and where that was
// the last to use it the system would take it away from under the feet of the compute thread and the pool, which sleep
// in it.
void stay_loaded();

}  // namespace hqq::addon
