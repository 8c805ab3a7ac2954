# Cross build for 64-bit ARM with Debian's or Ubuntu's g++-aarch64-linux-gnu; tests run under qemu-user-static.
#
#   cmake -B build-arm64 --toolchain cmake/toolchain-aarch64-linux-gnu.cmake -DHQQ_BUILD_ADDON=OFF -DHQQ_BUILD_TESTS=ON
#   cmake-js build --out build-arm64 --arch arm64 --CDCMAKE_TOOLCHAIN_FILE=cmake/toolchain-aarch64-linux-gnu.cmake
#
# Always with a build folder of its own: a foreign .node in build/Release would be found before anything else.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64-static;-L;/usr/aarch64-linux-gnu")
