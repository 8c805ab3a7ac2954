# The list of Node-API's functions for native/addon/node_api_imports.cc, from the package node-api-headers.
execute_process(
  COMMAND node -p "const { symbols } = require('node-api-headers'); const { js_native_api_symbols: a, node_api_symbols: b } = symbols.v9; [...a, ...b].map((name, i) => 'HQQ_IMPORT(' + i + ', ' + name + ')').join('\\n')"
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} OUTPUT_FILE ${CMAKE_CURRENT_BINARY_DIR}/node_api_imports.inc
  COMMAND_ERROR_IS_FATAL ANY)
target_sources(hqq PRIVATE native/addon/node_api_imports.cc)
set_source_files_properties(native/addon/node_api_imports.cc PROPERTIES INCLUDE_DIRECTORIES ${CMAKE_CURRENT_BINARY_DIR})
