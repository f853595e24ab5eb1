# The device's benchmarks and ladders with a processor in the device's place: built and run once at small
# sizes where Google Benchmark is. No time means anything; their checks do. Included by
# tests/played_device, whose headers stand in for CUDA's.
find_package(benchmark 1.7 QUIET)
if(NOT benchmark_FOUND)
  message(STATUS "Google Benchmark was not found: no device benchmark is tested")
  return()
endif()
set(bench_folder ${CMAKE_CURRENT_LIST_DIR})
file(GLOB played_benches CONFIGURE_DEPENDS ${bench_folder}/*_bench.cu)
file(GLOB played_ladders CONFIGURE_DEPENDS ${bench_folder}/ladder/*.cu)
set_source_files_properties(${played_benches} ${played_ladders} PROPERTIES LANGUAGE CXX)
foreach(source IN LISTS played_benches played_ladders)
  get_filename_component(name ${source} NAME_WE)
  if(source IN_LIST played_ladders)
    set(name ladder_${name})
  endif()
  add_executable(played_${name} ${source})
  target_include_directories(played_${name} PRIVATE ${bench_folder})
  target_compile_options(played_${name} PRIVATE -O1)  # the compiler takes longer than the program
  target_link_libraries(played_${name} PRIVATE played_device benchmark::benchmark)
  add_test(NAME "played: ${name}" COMMAND played_${name})
  set_tests_properties("played: ${name}" PROPERTIES LABELS played TIMEOUT 300
                       ENVIRONMENT DUALSFT_BENCH_SMALL=1)
endforeach()
