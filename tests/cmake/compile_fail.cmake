# Checks that SOURCE compiles as it is, and that each variant -DSHOULD_FAIL=n fails with the text
# that the source promises for it:
#
#   // expected-error 1: "first text" or "another compiler's text"
#
# cmake -DCOMPILER=... -DINCLUDE_DIRS=a,b -DSYSTEM_DIRS=c,d -DSOURCE=... -P compile_fail.cmake

cmake_minimum_required(VERSION 3.25)

# message(FATAL_ERROR) reflows its text; compiler output must stay as it is.
function(stop text)
  message(NOTICE "${text}")
  message(FATAL_ERROR "failed, see above")
endfunction()

string(REPLACE "," ";" include_dirs "${INCLUDE_DIRS}")
list(TRANSFORM include_dirs PREPEND -I)
string(REPLACE "," ";" system_dirs "${SYSTEM_DIRS}")
list(TRANSFORM system_dirs PREPEND -isystem)
set(compile ${COMPILER} -std=c++20 -fsyntax-only -Wall -Wextra -Werror -Wno-unknown-pragmas
    ${include_dirs} ${system_dirs} ${SOURCE})

execute_process(COMMAND ${compile} RESULT_VARIABLE result ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  stop("${SOURCE} should compile without SHOULD_FAIL:\n${output}")
endif()

set(variants 0)
file(READ ${SOURCE} rest)
# The texts hold quotes, brackets and semicolons: no CMake lists here, one match at a time.
while("${rest}" MATCHES "// expected-error ([0-9]+): (\"[^\n]*\")\n")
  set(variant ${CMAKE_MATCH_1})
  set(texts "${CMAKE_MATCH_2}")
  string(FIND "${rest}" "${CMAKE_MATCH_0}" position)
  string(LENGTH "${CMAKE_MATCH_0}" length)
  math(EXPR position "${position} + ${length}")
  string(SUBSTRING "${rest}" ${position} -1 rest)
  math(EXPR variants "${variants} + 1")

  # LC_ALL: texts are compared in English.
  execute_process(COMMAND ${CMAKE_COMMAND} -E env LC_ALL=C ${compile} -DSHOULD_FAIL=${variant}
                  RESULT_VARIABLE result ERROR_VARIABLE output)
  if(result EQUAL 0)
    stop("${SOURCE} with SHOULD_FAIL=${variant} compiles, but should not")
  endif()
  set(said FALSE)
  set(alternatives "${texts} or ")
  while("${alternatives}" MATCHES "^\"([^\"]*)\" or ")
    set(text "${CMAKE_MATCH_1}")
    string(LENGTH "${CMAKE_MATCH_0}" length)
    string(SUBSTRING "${alternatives}" ${length} -1 alternatives)
    string(FIND "${output}" "${text}" position)
    if(NOT position EQUAL -1)
      set(said TRUE)
    endif()
  endwhile()
  if(NOT said)
    stop("${SOURCE} with SHOULD_FAIL=${variant} fails, but the compiler does not say ${texts}:\n${output}")
  endif()
endwhile()

if(variants EQUAL 0)
  stop("${SOURCE} promises no error")
endif()
message(STATUS "${variants} variants of ${SOURCE} fail as promised")
