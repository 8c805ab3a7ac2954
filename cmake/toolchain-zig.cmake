# Cross build for every platform with Zig's C++ compiler: clang, libc++ and the C libraries of all targets in one package.
# scripts/prebuild.mjs gets the compiler and says both variables.
#
#   HQQ_ZIG          folder of the programs `zig`, `zig-ar` and `zig-ranlib`
#   HQQ_ZIG_TARGET   what to build for, as Zig says it: x86_64-linux-gnu.2.17, aarch64-macos.11.0, x86_64-windows-gnu
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES HQQ_ZIG HQQ_ZIG_TARGET)
foreach(variable HQQ_ZIG HQQ_ZIG_TARGET)
  if(NOT ${variable})
    message(FATAL_ERROR "Expected ${variable} to be set, as scripts/prebuild.mjs does.")
  endif()
endforeach()

if(HQQ_ZIG_TARGET MATCHES "^([a-z0-9_]+)-(linux|macos|windows)[-.]")
  set(CMAKE_SYSTEM_PROCESSOR ${CMAKE_MATCH_1})
  set(system ${CMAKE_MATCH_2})
else()
  message(FATAL_ERROR "Expected HQQ_ZIG_TARGET to be like x86_64-linux-gnu.2.17, got ${HQQ_ZIG_TARGET}.")
endif()
if(system STREQUAL "linux")
  set(CMAKE_SYSTEM_NAME Linux)
elseif(system STREQUAL "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
  set(CMAKE_OSX_SYSROOT "")  # Zig has its own headers; no Xcode is to be looked for
else()
  set(CMAKE_SYSTEM_NAME Windows)
endif()

# Linking makes Zig compile libc++, once for each platform and mode: minutes. So CMake's questions are put without linking,
# and which compiler this is, which CMake finds out by linking a debug build, is said here.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_CXX_COMPILER_ID_RUN TRUE)
set(CMAKE_CXX_COMPILER_ID Clang)
set(CMAKE_CXX_COMPILER_VERSION 22.1)
set(CMAKE_CXX_COMPILER_FRONTEND_VARIANT GNU)
set(CMAKE_CXX_STANDARD_COMPUTED_DEFAULT 17)
set(CMAKE_CXX_EXTENSIONS_COMPUTED_DEFAULT ON)

set(CMAKE_CXX_COMPILER ${HQQ_ZIG}/zig c++ -target ${HQQ_ZIG_TARGET})
set(CMAKE_AR ${HQQ_ZIG}/zig-ar)
set(CMAKE_RANLIB ${HQQ_ZIG}/zig-ranlib)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
